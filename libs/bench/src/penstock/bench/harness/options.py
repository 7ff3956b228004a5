"""The options of a benchmark's run."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        matrix: run the longer benchmark beside this one.
        stood_in: data sets that were asked for and are not there, so that generated data stood in.
    """

    data: Path | None = None
    quick: bool = False
    json: bool = False
    part: str = ""
    matrix: bool = False
    stood_in: set[str] = field(default_factory=set)

    def source(self, folder: str) -> str:
        """The name of a data set for `context.data`, or `generated` where it is not there."""
        return folder if self.folder(folder) is not None else GENERATED

    def folder(self, name: str) -> Path | None:
        """The folder of a data set, or None where it is not there."""
        if self.data is None or not (self.data / name).exists():
            self.stood_in.add(name)
            return None
        return self.data / name

    def proves_nothing(self) -> str:
        """Why the run's figures belong on no page; empty where they do."""
        if self.quick:
            return "a quick run proves nothing"
        if self.stood_in:
            missing = ", ".join(sorted(self.stood_in))
            return (
                f"generated data stood in for {missing}; `python -m penstock.bench fetch` says "
                "where public data sets are to be had, --data takes their folder"
            )
        return ""
