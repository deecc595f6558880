from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortrun.data import Dataset, ImageSet, load_dataset
from shortrun.errors import InputError
from shortrun.evaluation import classifier, own_features
from shortrun.metrics import Features


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the seeds of the trainings that take place."""
    seeds: list[int] = []
    train = classifier._train

    def noted(module: Features, images: ImageSet, labels: Tensor, seed: int) -> None:
        seeds.append(seed)
        train(module, images, labels, seed)

    monkeypatch.setattr(classifier, "_train", noted)
    return seeds


def bars(n: int = 200, shape: tuple[int, int, int] = (1, 6, 5), labels: tuple[int, int] = (7, 3)) -> Dataset:
    """Return noisy images whose upper or lower half is bright, with two labels."""
    rng = torch.Generator().manual_seed(0)
    upper = torch.rand(n, generator=rng) < 0.5
    pixels = torch.randint(0, 100, (n, *shape), generator=rng, dtype=torch.uint8)
    half = shape[1] // 2
    pixels[upper, :, :half] += 120
    pixels[~upper, :, half:] += 120
    whole = ImageSet(pixels, torch.where(upper, *labels), 256)
    return Dataset("some/bars", whole.select(slice(n // 2)), whole.select(slice(n // 2, None)))


def weights(module: Features) -> Tensor:
    return torch.cat([weight.flatten() for weight in module.parameters()])


def test_features_of_digits_tell_them_apart(cache: Path) -> None:
    data = load_dataset("digits")
    before = torch.random.get_rng_state()
    found = own_features(data)
    assert torch.equal(before, torch.random.get_rng_state())
    assert 0.95 < found.accuracy <= 1
    x = data.test.images(slice(10))
    assert found(x).shape == (10, 64) == (10, found.num_features)
    torch.testing.assert_close(found(x)[3:4], found(x[3:4]))
    assert not found.training
    assert not found(x).requires_grad


def test_a_second_call_reads_what_the_first_wrote(cache: Path, trainings: list[int]) -> None:
    data = bars()
    first, again = own_features(data), own_features(data)
    assert trainings == [0]
    assert torch.equal(weights(first), weights(again))
    assert first.accuracy == again.accuracy > 0.95
    [file] = cache.iterdir()
    assert file.name.startswith("some_bars-")


def test_the_seed_and_the_images_decide(cache: Path, trainings: list[int]) -> None:
    data = bars()
    first = weights(own_features(data))
    assert not torch.equal(first, weights(own_features(data, seed=1)))
    own_features(replace(data, train=data.train.take(99)))
    one = data.test.pixels.clone()
    one[-1, 0, 0, 0] += 1
    own_features(replace(data, test=replace(data.test, pixels=one)))
    assert trainings == [0, 1, 0, 0]
    for file in cache.iterdir():
        file.unlink()
    assert torch.equal(first, weights(own_features(data)))


@pytest.mark.parametrize("damage", ["cut", "empty", "words", "another seed", "another shape"])
def test_a_damaged_file_is_trained_again(cache: Path, trainings: list[int], damage: str) -> None:
    data = bars()
    first = weights(own_features(data))
    [file] = cache.iterdir()
    whole = file.read_bytes()
    if damage == "another seed":
        own_features(data, seed=1)
        [other] = set(cache.iterdir()) - {file}
        other.replace(file)
    elif damage == "another shape":  # the right words about the wrong weights
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(file, framework="pt") as opened:
            about = opened.metadata()
        save_file(Features((1, 6, 5), 3).state_dict(), file, metadata=about)
    else:
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "words": b"nothing of use"}[damage])
    trainings.clear()
    assert torch.equal(first, weights(own_features(data)))
    assert torch.equal(first, weights(own_features(data)))
    assert trainings == [0]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 17, 4), (1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_any_size_of_image_has_features(shape: tuple[int, int, int]) -> None:
    module = Features(shape, classes=2)
    x = torch.zeros(2, *shape)
    assert module(x).shape == (2, 64)
    assert module.logits(x).shape == (2, 2)


def test_labels_never_trained_on_are_wrong(cache: Path) -> None:
    data = bars()
    assert data.test.labels is not None
    strange = replace(data.test, labels=torch.where(data.test.labels == 7, 1000, data.test.labels))
    share = (data.test.labels == 3).double().mean().item()
    assert own_features(replace(data, test=strange)).accuracy == pytest.approx(share, abs=0.03)


def test_what_has_no_features_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = bars()
    for part in ("train", "test"):
        with pytest.raises(InputError, match="dataset: some/bars has no labels"):
            own_features(replace(data, **{part: replace(data.test, labels=None)}))
    with pytest.raises(InputError, match=r"dataset: .* some/bars have one label"):
        own_features(bars(labels=(4, 4)))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="SHORTRUN_CACHE: cannot write"):
        own_features(data)
    assert not cache.exists()


def test_without_a_cache_that_can_be_written_features_are_trained_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container whose home cannot be written."""
    monkeypatch.delenv("SHORTRUN_CACHE", raising=False)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "file" / name)
    first, again = own_features(bars()), own_features(bars())
    assert trainings == [0, 0]
    assert torch.equal(weights(first), weights(again))
    said = capsys.readouterr().err
    assert said.count("the features are trained anew each time: SHORTRUN_CACHE: cannot write") == 2
    assert said.count("\n") == 2
