"""What holds for all tests."""

import os

import pytest
from campaign_counts import add_options, print_tables

# Tests run side by side, one process a core: more threads in each would only wait for one another. Set before torch is
# imported, and in the environment, so that processes which tests start have it too.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    print_tables(terminalreporter)
