"""The critical path: its sections cover the root's time exactly, and it goes through the spans that
the answer waited for.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.telemetry.spans.critical_path import critical_ns_by_span, critical_path
from penstock.telemetry.spans.spans import Source, SpanTree, SpanView, error_origin

from .conftest import LOCAL, span

OTHER = Source("batcher", "b1")


def critical_ns(*spans: SpanView) -> dict[str, int]:
    return critical_ns_by_span(critical_path(SpanTree(spans)))


def test_children_one_after_another_and_the_gaps_between_them() -> None:
    root, a, b = span("root", 0, 100), span("a", 10, 40, "root"), span("b", 50, 90, "root")
    assert critical_ns(root, a, b) == {"root": 30, "a": 30, "b": 40}


def test_back_to_back_children_are_both_on_the_path() -> None:
    root, a, b = span("root", 0, 100), span("a", 0, 50, "root"), span("b", 50, 100, "root")
    assert critical_ns(root, a, b) == {"a": 50, "b": 50}


def test_of_parallel_children_the_last_to_end_is_on_the_path() -> None:
    root = span("root", 0, 100)
    short, long = span("short", 10, 60, "root"), span("long", 10, 95, "root")
    assert critical_ns(root, short, long) == {"root": 15, "long": 85}


def test_work_after_the_answer_is_not_on_the_path() -> None:
    root = span("root", 0, 100)
    assert critical_ns(root, span("store", 90, 150, "root")) == {"root": 100}


def test_a_span_that_declares_nobody_waited_is_not_on_the_path() -> None:
    root = span("root", 0, 100)
    log = span("log", 20, 100, "root", penstock__waited_on=False)
    assert critical_ns(root, log) == {"root": 100}


def test_the_loser_of_a_hedge_is_not_on_the_path() -> None:
    root = span("root", 0, 62)
    winner = span("winner", 20, 60, "root")
    loser = span("loser", 10, 61, "root", error="CANCELLED")
    assert critical_ns(root, winner, loser) == {"root": 22, "winner": 40}


def test_another_machines_clock_may_be_ahead() -> None:
    client = span("client", 10, 90, "root", kind="client")
    server = span("server", 40, 110, "client", source=OTHER, kind="server")
    assert critical_ns(span("root", 0, 100), client, server) == {
        "root": 20,
        "client": 30,
        "server": 50,
    }


def test_a_child_outside_its_parents_time_is_ignored() -> None:
    assert critical_ns(span("root", 100, 200), span("early", 10, 50, "root")) == {"root": 100}


def test_a_consumer_is_not_waited_for() -> None:
    job = span("job", 20, 80, "root", kind="consumer")
    assert critical_ns(span("root", 0, 100), job) == {"root": 100}


def test_a_chain_of_ten_thousand_spans_does_not_overflow_the_stack() -> None:
    spans = [span("0", 0, 30_000)]
    spans += [span(str(n), n, 30_000 - n, str(n - 1)) for n in range(1, 10_000)]
    assert sum(critical_ns(*spans).values()) == 30_000


def test_spans_that_are_their_own_ancestors_do_not_loop() -> None:
    cycle = [span("a", 0, 10, "b"), span("b", 0, 10, "a"), span("self", 0, 5, "self")]
    tree = SpanTree([*cycle, span("root", 0, 20)])
    sections = critical_path(tree)
    assert sum(part.end_ns - part.start_ns for part in sections) == tree.root.duration_ns
    assert len(tree.in_order()) <= 4


child_spans = st.lists(
    st.tuples(
        st.integers(0, 8),  # parent
        st.integers(-50, 200),  # start
        st.integers(0, 120),  # duration
        st.sampled_from([LOCAL, OTHER]),
        st.sampled_from(["", "", "CANCELLED", "INTERNAL"]),
        st.sampled_from(["internal", "client", "server", "consumer"]),
    ),
    max_size=9,
)


@settings(max_examples=400, deadline=None)
@given(child_spans)
def test_sections_cover_the_roots_time_without_gap_or_overlap(
    children: list[tuple[int, int, int, Source, str, str]],
) -> None:
    spans = [span("0", 0, 100)]
    for number, (parent, start, length, source, error, kind) in enumerate(children, start=1):
        name, end = str(number), start + length
        spans.append(span(name, start, end, str(parent), source=source, error=error, kind=kind))
    tree = SpanTree(spans)
    cursor = tree.root.start_ns
    for part in critical_path(tree):
        assert part.start_ns == cursor
        assert part.end_ns > part.start_ns
        cursor = part.end_ns
    assert cursor == tree.root.end_ns


def test_an_error_began_in_the_child_that_failed_first() -> None:
    tree = SpanTree(
        [
            span("root", 0, 100, error="UNAVAILABLE"),
            span("first try", 5, 30, "root", error="UNAVAILABLE"),
            span("its leaf", 10, 25, "first try", error="UNAVAILABLE"),
            span("second try", 40, 90, "root", error="UNAVAILABLE"),
        ]
    )
    origin = error_origin(tree)
    assert origin is not None
    assert origin.name == "its leaf"


def test_a_root_that_did_not_fail_has_no_error_origin() -> None:
    recovered = [span("root", 0, 10), span("a", 0, 5, "root", error="INTERNAL")]
    assert error_origin(SpanTree(recovered)) is None
