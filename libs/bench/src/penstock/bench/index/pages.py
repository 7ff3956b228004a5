"""Reads the figures back from the pages in `docs/benchmarks`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FIGURE = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$")
INTERVAL = re.compile(r"95 ?%|_(low|high|upper)95")


@dataclass(frozen=True)
class Page:
    """A benchmark's page.

    Attributes:
        name: of the benchmark.
        figures: by name.
        met: names of figures that reach what was asked.
        short: names of those that do not.
        has_interval: whether it says how far its figures may be off.
    """

    name: str
    figures: dict[str, float]
    met: tuple[str, ...]
    short: tuple[str, ...]
    has_interval: bool


def read_page(name: str, text: str) -> Page:
    """The figures on a page."""
    rows = [found.groups() for line in text.splitlines() if (found := FIGURE.match(line))]
    verdicts = {figure: verdict.strip(" *") for figure, _, _, verdict in rows}
    return Page(
        name,
        {figure: float(got) for figure, _, got, _ in rows},
        tuple(figure for figure, verdict in verdicts.items() if verdict == "met"),
        tuple(figure for figure, verdict in verdicts.items() if verdict == "short"),
        bool(INTERVAL.search(text)),
    )


def read_pages(folder: Path, names: tuple[str, ...]) -> Iterator[Page]:
    """The pages that are there."""
    for name in names:
        path = folder / f"{name}.md"
        if path.exists():
            yield read_page(name, path.read_text())
