"""The critical path of a trace: which span the answer was waiting for, at every moment.

Plain and iterative.

The algorithm is that of Jaeger and CRISP (USENIX ATC 2022) with three mends: bounds are inclusive,
so that back-to-back spans are not lost; nothing recurses; and only children that were waited on
count. The sections tile the root's time exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.telemetry.spans.spans import SpanTree, SpanView, is_waited_on

OVERLAP = 100
"""A child may end later than the moment we look at by a hundredth of its own length: clocks and
timers are not exact (CRISP).
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of time spent in one span itself; Unix nanoseconds."""

    span: SpanView
    start_ns: int
    end_ns: int


class _Frame:
    """A span whose time from `low` back from `cursor` is still to be told."""

    __slots__ = ("children", "cursor", "low", "next", "span")

    def __init__(self, tree: SpanTree, span: SpanView, low: int, cursor: int) -> None:
        self.span = span
        self.low = low
        self.cursor = cursor
        inside = [
            child
            for child in tree.of(span)
            if child.end_ns > low
            and child.start_ns < cursor
            and child.end_ns > child.start_ns
            and is_waited_on(span, child)
        ]
        self.children = sorted(inside, key=lambda child: child.end_ns, reverse=True)
        self.next = 0

    def last_child(self) -> SpanView | None:
        """The child that ended last at or before the cursor, and has not been looked at."""
        while self.next < len(self.children):
            child = self.children[self.next]
            self.next += 1
            late = child.end_ns - self.cursor
            other_clock = self.next == 1 and self.span.source != child.source
            if child.start_ns < self.cursor and (
                late <= child.duration_ns // OVERLAP or other_clock
            ):
                return child
        return None


def critical_path(tree: SpanTree) -> list[Section]:
    """Sections in order of time; they do not overlap and their lengths sum to the root's
    duration.
    """
    root = tree.root
    sections: list[Section] = []
    frames = [_Frame(tree, root, root.start_ns, max(root.start_ns, root.end_ns))]
    while frames:
        frame = frames[-1]
        child = frame.last_child()
        if child is None:
            _tell(sections, frame.span, frame.low, frame.cursor)
            frames.pop()
            continue
        end = min(child.end_ns, frame.cursor)
        start = max(child.start_ns, frame.low)
        _tell(sections, frame.span, end, frame.cursor)
        frame.cursor = start
        frames.append(_Frame(tree, child, start, end))
    sections.reverse()
    return sections


def _tell(sections: list[Section], span: SpanView, start_ns: int, end_ns: int) -> None:
    if end_ns > start_ns:
        sections.append(Section(span, start_ns, end_ns))


def critical_ns_by_span(sections: list[Section]) -> dict[str, int]:
    """Nanoseconds of the path by span identifier."""
    spent: dict[str, int] = {}
    for section in sections:
        spent[section.span.span_id] = (
            spent.get(section.span.span_id, 0) + section.end_ns - section.start_ns
        )
    return spent
