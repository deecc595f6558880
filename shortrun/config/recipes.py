"""Recipes: TOML files in the package, or the user's own, read into a configuration."""

import dataclasses
import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from shortrun.config.checks import checked_settings
from shortrun.config.whole import Config
from shortrun.errors import InputError, did_you_mean, reason
from shortrun.mapping import from_mapping
from shortrun.registry import LEARNERS, check_name

RECIPES = Path(__file__).parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package.

    >>> "digits" in recipe_names()
    True
    """
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def is_folder(recipe: str) -> bool:
    """Return whether words name a folder, of images then, and no recipe.

    recipe: as the user wrote it; a recipe's name stands for the recipe even where a folder has it too.
    """
    return recipe not in recipe_names() and os.path.isdir(os.path.expanduser(recipe))


def load_config(recipe: str, learner: str | None = None) -> Config:
    """Return the configuration of a recipe, with its settings checked but for what only the learner's class knows.

    `train` checks the rest.

    recipe: the name of a recipe in the package, or the path of a TOML file.
    learner: the name of a learner, or module:Name, in place of the recipe's own; None keeps that.

    Raises InputError for an unknown name, an unknown key, a wrong type, a value out of range, and a file that is not
    TOML.

    >>> config = load_config("digits", "vae")
    >>> config.data.source, config.learner
    ('digits', 'vae')
    """
    return checked_settings(read_recipe(recipe, learner))


def read_recipe(recipe: str, learner: str | None = None) -> Config:
    """Return the configuration of a recipe whose values may be overridden before they are checked.

    Only keys and types are looked at. What the recipe's table `learners.NAME` holds for the learner takes the place of
    the values that all learners share.

    recipe: the name of a recipe in the package, or the path of a TOML file.
    learner: the name of a learner, or module:Name, in place of the recipe's own; None keeps that.

    Raises InputError for an unknown name, an unknown key, a wrong type, and a file that is not TOML.
    """
    path = RECIPES / f"{recipe}.toml"
    if not os.path.isfile(path):  # says no to a name that no file can have, where Path.is_file raises
        path = Path(recipe)
        if path.suffix != ".toml":
            hint = f"{did_you_mean(recipe, recipe_names())} (or the path of a .toml file, or of a folder of images)"
            raise InputError("recipe", repr(recipe), hint)
        if not os.path.isfile(path):
            raise InputError(
                "recipe",
                problem=f"{recipe} does not exist",
                instead="write the path of a .toml file or a recipe's name",
            )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a mark
    except (ValueError, OSError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, a number of 5,000 digits
        raise InputError(
            "recipe",
            problem=f"{path} is not TOML ({reason(error)})",
            instead="see the recipes that `shortrun train --help` names",
        ) from None
    return from_mapping(Config, _for_learner(values, learner), "")


def as_published(config: Config) -> Config:
    """Return a configuration with the inference of Nijkamp et al. 2020 in place of its own.

    Chains of 25 noisy steps start from the prior N(0, I). Their step size is constant along the chain, one for all
    layers, and tuned while the model learns by the paper's estimator. Images, generator, likelihood and the loop stay.

    config: any.

    >>> as_published(load_config("digits")).inference.tuning.estimator
    'conditional'

    Source: Nijkamp et al., ECCV 2020, arXiv 1912.01909.
    """
    tuning = dataclasses.replace(config.inference.tuning, estimator="conditional", tuner="grid", over="one")
    inference = dataclasses.replace(
        config.inference,
        start="prior",
        candidates=1,
        steps=25,
        test_steps=None,
        step_size="tuned",
        step_decay=1.0,
        noise=True,
        tuning=tuning,
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, prior="normal"),
        inference=inference,
        training=dataclasses.replace(config.training, step_size_schedule=()),
    )


def _for_learner(values: dict[str, Any], learner: str | None) -> dict[str, Any]:
    """Return the values of a recipe as the chosen learner has them, without the tables of the others."""
    tables = values.pop("learners", {})
    if not isinstance(tables, Mapping):
        raise InputError("learners", repr(tables), "write tables of settings, [learners.vae.training] for example")
    chosen = values.get("learner", "short_run") if learner is None else learner
    for name, where in [(chosen, "learner"), *((table, "learners") for table in tables)]:
        check_name(LEARNERS, str(name), where)
    for name, table in tables.items():
        # each table is read once, so that a wrong word in it is found whichever learner is chosen
        from_mapping(Config, table, f"learners.{name}")
    return {**_merged(values, tables.get(chosen, {})), "learner": chosen}


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with those of another mapping in place of their own."""
    merged = dict(values)
    for key, value in over.items():
        own = merged.get(key)
        merged[key] = _merged(own, value) if isinstance(value, Mapping) and isinstance(own, Mapping) else value
    return merged


def absolute(config: Config, names: Collection[str]) -> Config:
    """Return the configuration with its paths made absolute, so that a run can be resumed from any folder.

    config: the configuration.
    names: what data.source means a data set by, even where a file or folder of that name is at hand.
    """
    data, source = config.data, Path(config.data.source).expanduser()
    is_path = data.source not in names and source.exists()
    folder = data.dir and data.dir.expanduser().resolve()
    masks = data.masks and data.masks.expanduser().resolve()
    source = str(source.resolve()) if is_path else data.source
    data = dataclasses.replace(data, dir=folder, source=source, masks=masks)
    return dataclasses.replace(config, data=data)
