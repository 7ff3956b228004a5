"""The critical path of a trace: at every moment, the span that the answer was waiting for.

The algorithm is that of Jaeger and of CRISP (USENIX ATC 2022). It walks back in time from the end
of the root. At each moment it goes into the child that ended last before it; where there is none,
the time back to the start belongs to the span itself. The result is a list of sections that cover
the root's time exactly, without overlap.

It differs from the published one in three points. A child that ends exactly where the next one
begins counts, so that spans one right after another are not lost. It uses a stack instead of
recursion, so that long chains do not overflow. And only children that were waited on count.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from penstock.telemetry.spans.spans import SpanTree, SpanView, is_waited_on

OVERRUN_DIVISOR = 100
"""A child may end later than the moment looked at by a hundredth of its own duration, because
clocks and timers are not exact (CRISP).
"""


class Section(NamedTuple):
    """A stretch of the critical path, spent in one span itself; Unix nanoseconds."""

    span: SpanView
    start_ns: int
    end_ns: int


class _Frame:
    """A span whose time from `low_ns` to `cursor_ns` has not been assigned yet."""

    __slots__ = ("_children", "_next", "cursor_ns", "low_ns", "span")

    def __init__(self, tree: SpanTree, span: SpanView, low_ns: int, cursor_ns: int) -> None:
        self.span = span
        self.low_ns = low_ns
        self.cursor_ns = cursor_ns
        self._children = [
            child
            for child in tree.children_of(span)
            if child.end_ns > low_ns
            and child.start_ns < cursor_ns
            and child.end_ns > child.start_ns
            and is_waited_on(span, child)
        ]
        if len(self._children) > 1:
            self._children.sort(key=attrgetter("end_ns"), reverse=True)
        self._next = 0

    def pop_last_child(self) -> SpanView | None:
        """The child that ended last at or before the cursor, of those not yet returned.

        The first child looked at may end later when another process recorded it, for its clock may
        be ahead.
        """
        while self._next < len(self._children):
            child = self._children[self._next]
            self._next += 1
            if child.start_ns < self.cursor_ns and self._is_in_time(child):
                return child
        return None

    def _is_in_time(self, child: SpanView) -> bool:
        overrun_ns = child.end_ns - self.cursor_ns
        if overrun_ns <= 0 or overrun_ns <= child.duration_ns // OVERRUN_DIVISOR:
            return True
        return self._next == 1 and self.span.source != child.source


def critical_path(tree: SpanTree) -> list[Section]:
    """The sections of the critical path in order of time.

    They do not overlap, and their lengths sum to the root's duration.
    """
    root = tree.root
    sections: list[Section] = []
    frames = [_Frame(tree, root, root.start_ns, max(root.start_ns, root.end_ns))]
    while frames:
        frame = frames[-1]
        child = frame.pop_last_child()
        if child is None:
            _append_section(sections, frame.span, frame.low_ns, frame.cursor_ns)
            frames.pop()
            continue
        end_ns = min(child.end_ns, frame.cursor_ns)
        start_ns = max(child.start_ns, frame.low_ns)
        _append_section(sections, frame.span, end_ns, frame.cursor_ns)
        frame.cursor_ns = start_ns
        if tree.children_of(child):
            frames.append(_Frame(tree, child, start_ns, end_ns))
        else:
            _append_section(sections, child, start_ns, end_ns)
    sections.reverse()
    return sections


def _append_section(sections: list[Section], span: SpanView, start_ns: int, end_ns: int) -> None:
    if end_ns > start_ns:
        sections.append(Section(span, start_ns, end_ns))


def critical_ns_by_span(sections: list[Section]) -> dict[str, int]:
    """Nanoseconds on the critical path by span identifier."""
    critical_ns: dict[str, int] = {}
    for section in sections:
        span_id = section.span.span_id
        critical_ns[span_id] = critical_ns.get(span_id, 0) + section.end_ns - section.start_ns
    return critical_ns
