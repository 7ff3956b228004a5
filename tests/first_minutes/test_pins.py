"""Every package that an installation brings has a pin, whichever Python there is."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def pinned() -> set[str]:
    """The packages whose version is given."""
    lines = CONSTRAINTS.read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0].partition("[")[0]) for line in lines if line}


def needed(python: str) -> Iterator[str]:
    """What the installed packages need on a version of Python, extras aside."""
    version = python.rpartition(".")[0]
    environment = default_environment() | {
        "python_full_version": python,
        "python_version": version,
        "extra": "",
    }
    for package in importlib.metadata.distributions():
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
                yield canonicalize_name(requirement.name)


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.0", "3.13.0"])
def test_what_a_version_of_python_needs_is_pinned(python: str) -> None:
    unpinned = {name for name in needed(python) if not name.startswith("penstock-")} - pinned()
    assert not unpinned
