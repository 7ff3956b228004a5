"""`python -m penstock.bench fetch`: which public data sets the benchmarks read, where they are to
be had, and whether a folder holds them as they were read here.

Nothing is downloaded: licences differ, and some ask for a mention.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path


class State(Enum):
    """What a folder holds of a data set."""

    THERE = "there"
    MISSING = "missing"
    DIFFERS = "differs"


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        folder: its folder below `--data`.
        repository: owner and name on GitHub.
        commit: from which the files were taken.
        licence: of the files.
        content: what it is.
        files: SHA-256 by path below the folder.
    """

    folder: str
    repository: str
    commit: str
    licence: str
    content: str
    files: Mapping[str, str]


def data_sets() -> Iterator[DataSet]:
    """All that the benchmarks read, by folder."""
    listed = json.loads(files(__package__).joinpath("public_data.json").read_text())
    for folder, said in listed.items():
        yield DataSet(folder, **said)


def checksums() -> Iterator[str]:
    """The digest and the path of each file below `--data`, as `sha256sum -c` reads them."""
    for each in data_sets():
        for name, digest in each.files.items():
            yield f"{digest}  {each.folder}/{name}"


def check(data_set: DataSet, data: Path | None) -> dict[str, State]:
    """What of each file is in the folder `data`; all is missing where there is none."""
    if data is None:
        return dict.fromkeys(data_set.files, State.MISSING)
    folder = data / data_set.folder
    return {name: _state(folder / name, digest) for name, digest in data_set.files.items()}


def _state(path: Path, digest: str) -> State:
    if not path.is_file():
        return State.MISSING
    same = hashlib.sha256(path.read_bytes()).hexdigest() == digest
    return State.THERE if same else State.DIFFERS


def summary(states: Mapping[str, State]) -> str:
    """The states of a data set's files in a few words."""
    found = set(states.values())
    if len(found) == 1:
        return found.pop().value
    odd = sorted(name for name, state in states.items() if state is not State.THERE)
    return f"{len(states) - len(odd)} of {len(states)} there; not {', '.join(odd[:3])}"
