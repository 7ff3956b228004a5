"""What a benchmark is told: where data lies, and whether to be quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """`data`: folder of public data sets or None for the built-in generator.

    `quick`: prove only that it runs.

    `part`: only this part of a benchmark that has parts (its `PARTS`); empty for all.
    """

    data: Path | None = None
    quick: bool = False
    json: bool = False
    part: str = ""

    def source(self, folder: str) -> str:
        """What `context.data` says: the data set's name, or that it was generated."""
        return folder if self.data is not None and (self.data / folder).exists() else "generated"
