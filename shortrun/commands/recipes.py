"""The recipe that a command line begins with: a name, a .toml file, or a folder of images."""

from collections.abc import Sequence

from shortrun.config import Config, is_folder, read_recipe


def read(recipe: str, learner: str | None, words: Sequence[str]) -> Config:
    """Return the configuration that the options of a command are read on top of.

    recipe: as the user wrote it.
    learner: in place of the recipe's own; None keeps that.
    words: the options: what is chosen for a folder of images depends on the size that is asked for.
    """
    if not is_folder(recipe):  # at once: what looks at images needs torch
        return read_recipe(recipe, learner)
    from shortrun.training.photos import settings_of

    size = chosen(words, "--data.image-size") or chosen(words, "--data.image_size") or ""
    return settings_of(recipe, learner, int(size) if size.isdecimal() and int(size) else None)


def chosen(words: Sequence[str], option: str) -> str | None:
    """Return the value that words give to an option; None where they do not name it.

    words: of the command line.
    option: its name.
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.split("=")[0] == option:
            return (word.split("=", 1)[1] if "=" in word else following.removeprefix("--help")) or None
    return None
