"""What every test may use: the built model, and a folder that holds it.

Here too is which tests stay together when they run on several cores, and which begin. No test has a
deadline: how long one takes says more of the machine than of the code.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")
MODEL = "all-MiniLM-L6-v2"
ONE_SYSTEM = Path(__file__).parent / "black_box"
"""The folder whose tests share one running system."""


class OneSystem(LoadFileScheduling):
    """Gives a file's tests to one core, and those of the shared system to one core as well."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(super()._split_scope(nodeid))
        return ONE_SYSTEM.name if ONE_SYSTEM.name in file.parts else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneSystem:
    """Which core runs which tests; whatever `--dist` says."""
    return OneSystem(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files; the random order within one stays.

    On one core the tests of the shared system come last, so that it runs beside no other test. On
    several, what takes longest begins: the shared system, then files that start processes.
    """
    on_several_cores = hasattr(config, "workerinput")
    items.sort(key=_turn if on_several_cores else _is_of_one_system)


def _is_of_one_system(item: pytest.Item) -> bool:
    return ONE_SYSTEM in item.path.parents


def _turn(item: pytest.Item) -> int:
    """Lower numbers begin earlier."""
    if _is_of_one_system(item):
        return 0
    return 1 if item.get_closest_marker("processes") else 2


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Take away the log handlers that a test leaves, and let everything be logged again.

    A program that a test runs in this process sends its log to the standard error of that test,
    which is closed once the test is over.
    """
    handlers, level = logging.root.handlers[:], logging.root.level
    outcome = yield
    logging.disable(logging.NOTSET)
    for left in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(left)
    logging.root.setLevel(level)
    return outcome


@pytest.fixture(scope="session")
def home() -> Path:
    """The folder with the built model; `make model` makes it."""
    folder = Path(
        os.environ.get("PENSTOCK_HOME", Path(__file__).parents[1] / ".penstock")
    ).resolve()
    if not (folder / "models" / MODEL / "1" / "card.json").exists():
        pytest.fail("the default model is not there; run `make model`")
    return folder
