"""What the user typed, as error lines name it."""

SOURCE = "--data.source"
DATA_DIR = "--data-dir"
IMAGE_SIZE = "--data.image-size"
CROP = "--data.crop"
TRAIN_LIMIT = "--data.train-limit"
TEST_LIMIT = "--data.test-limit"
TEST_FRACTION = "--data.test-fraction"
IMAGES = "--images"
MASK = "--mask"
FIT = "--fit"


def reason(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__
