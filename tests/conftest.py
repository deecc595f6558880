"""What holds for all tests."""

import os

import pytest
from campaign_counts import add_options, print_tables

# Tests run side by side, one process a core: more threads in each would only wait for one another. Set before torch is
# imported, and in the environment, so that processes which tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONG = ("test_extending", "test_training_compiling", "test_benchmarks", "test_experiments", "test_training_rae")
"""Files whose few tests take long. They come first: taken last, one process would wait for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first, all others in their order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    print_tables(terminalreporter)
