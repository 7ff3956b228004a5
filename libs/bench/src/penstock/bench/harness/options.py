"""The options of a benchmark's run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GENERATED = "generated"


@dataclass(frozen=True)
class Options:
    """What the command line gives.

    Attributes:
        data: folder of public data sets; None: generated data.
        quick: only show that the benchmark runs; its figures prove nothing.
        json: print the last line only.
        part: the only part to run, one of the module's PARTS; empty: all.
    """

    data: Path | None = None
    quick: bool = False
    json: bool = False
    part: str = ""

    def source(self, folder: str) -> str:
        """The name of a data set for `context.data`, or `generated` where it is not there."""
        return folder if self.folder(folder) is not None else GENERATED

    def folder(self, name: str) -> Path | None:
        """The folder of a data set, or None where it is not there."""
        if self.data is None or not (self.data / name).exists():
            return None
        return self.data / name
