"""What an experiment asks of its recipe."""

from shortrun.config import Config
from shortrun.errors import InputError


def check_short_run(config: Config) -> None:
    """Raise InputError unless the recipe's learner is short_run: the experiment is about its chain."""
    if config.learner != "short_run":
        raise InputError("learner", f"{config.learner!r}", "this experiment is about the chain of short_run")
