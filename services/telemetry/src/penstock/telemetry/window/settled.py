"""A settled request as detectors are shown it. A value only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.telemetry.spans.critical_path import Section, critical_path
from penstock.telemetry.spans.spans import Tree
from penstock.telemetry.window.traces import Summary


@dataclass(frozen=True)
class RequestSeen:
    """A settled request: its row, and its spans to make features and a critical path from."""

    summary: Summary
    tree: Tree

    @cached_property
    def sections(self) -> Sequence[Section]:
        """The critical path."""
        return critical_path(self.tree)
