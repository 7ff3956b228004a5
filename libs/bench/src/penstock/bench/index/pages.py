"""Reads the figures back from the pages in `docs/benchmarks`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.harness.report import NOT_RUN

FIGURE = re.compile(r"^\| `([^`]+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$")
GOT = re.compile(r"(\S+)(?: \[(\S+), (\S+); (\d+) ([^\]]+)\]| (\(exact\)))?$")


@dataclass(frozen=True)
class Figure:
    """A figure on a page.

    Attributes:
        value: what was measured.
        low, high: ends of its interval; both the value where it is exact, None without interval.
        is_judged: whether something was asked of it.
        verdict: what the page says of what was asked.
    """

    value: float
    low: float | None
    high: float | None
    is_judged: bool
    verdict: str

    @property
    def lacks_interval(self) -> bool:
        """Whether something is said of it without saying how far it may be off."""
        return self.is_judged and self.low is None


@dataclass(frozen=True)
class Page:
    """A benchmark's page.

    Attributes:
        name: of the page.
        figures: by name.
        not_run: what could not be measured where it was made, and why; empty where all was.
    """

    name: str
    figures: dict[str, Figure]
    not_run: str = ""

    @property
    def met(self) -> tuple[str, ...]:
        """Names of figures whose interval reaches what was asked."""
        return self._where(lambda figure: figure.verdict == "met" and not figure.lacks_interval)

    @property
    def short(self) -> tuple[str, ...]:
        """Names of figures that do not reach it."""
        return self._where(lambda figure: figure.verdict == "short")

    @property
    def uncertain(self) -> tuple[str, ...]:
        """Names of figures that reach it while their interval does not."""
        return self._where(lambda figure: "does not clear" in figure.verdict)

    @property
    def without_interval(self) -> tuple[str, ...]:
        """Names of judged figures that neither have an interval nor are exact."""
        return self._where(lambda figure: figure.lacks_interval)

    def _where(self, holds: Callable[[Figure], bool]) -> tuple[str, ...]:
        return tuple(name for name, figure in self.figures.items() if holds(figure))


def read_page(name: str, text: str) -> Page:
    """The figures on a page.

    Raises:
        ValueError: a row's figure is no number.
    """
    rows = [found.groups() for line in text.splitlines() if (found := FIGURE.match(line))]
    missing = [line.removeprefix(NOT_RUN) for line in text.splitlines() if line.startswith(NOT_RUN)]
    return Page(
        name,
        {figure: _figure(asked, got, verdict) for figure, asked, got, verdict in rows},
        " ".join(missing).strip(),
    )


def _figure(asked: str, got: str, verdict: str) -> Figure:
    found = GOT.match(got)
    if found is None:
        raise ValueError(f"no figure: {got!r}")
    text, low, high, _, _, exact = found.groups()
    value = float(text)
    if exact:
        low = high = text
    is_judged, said = bool(asked.strip()), verdict.strip(" *")
    return Figure(
        value, float(low) if low else None, float(high) if high else None, is_judged, said
    )


def read_pages(folder: Path, names: tuple[str, ...]) -> Iterator[Page]:
    """The pages that are there."""
    for name in names:
        path = folder / f"{name}.md"
        if path.exists():
            yield read_page(name, path.read_text())
