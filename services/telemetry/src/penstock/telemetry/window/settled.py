"""A settled request as detectors are shown it. A value only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.telemetry.spans.critical_path import Section, critical_path
from penstock.telemetry.spans.spans import SpanTree
from penstock.telemetry.window.traces import TraceSummary


@dataclass(frozen=True)
class SettledRequest:
    """A settled request: its row, and its spans to make features and a critical path from."""

    summary: TraceSummary
    tree: SpanTree

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The critical path."""
        return critical_path(self.tree)
