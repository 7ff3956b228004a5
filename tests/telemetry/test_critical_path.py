"""The critical path: sections tile the root's time, and the known faults of other viewers are not
ours.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.telemetry.spans.critical_path import critical_ns_by_span, critical_path
from penstock.telemetry.spans.spans import Source, SpanTree, SpanView, error_origin

from .conftest import LOCAL, span

OTHER = Source("batcher", "b1")


def told(*spans: SpanView) -> dict[str, int]:
    return critical_ns_by_span(critical_path(SpanTree(spans)))


def test_children_one_after_another_and_the_gap_between() -> None:
    assert told(span("root", 0, 100), span("a", 10, 40, "root"), span("b", 50, 90, "root")) == {
        "root": 30,
        "a": 30,
        "b": 40,
    }


def test_back_to_back_children_are_both_on_the_path() -> None:
    assert told(span("root", 0, 100), span("a", 0, 50, "root"), span("b", 50, 100, "root")) == {
        "a": 50,
        "b": 50,
    }


def test_of_parallel_children_the_last_to_end_counts() -> None:
    assert told(
        span("root", 0, 100), span("short", 10, 60, "root"), span("long", 10, 95, "root")
    ) == {
        "root": 15,
        "long": 85,
    }


def test_work_after_the_answer_is_not_on_the_path() -> None:
    assert told(span("root", 0, 100), span("store", 90, 150, "root")) == {"root": 100}
    assert told(span("root", 0, 100), span("log", 20, 100, "root", penstock__waited_on=False)) == {
        "root": 100
    }


def test_the_loser_of_a_hedge_is_not_on_the_path() -> None:
    winner, loser = span("winner", 20, 60, "root"), span("loser", 10, 61, "root", error="CANCELLED")
    assert told(span("root", 0, 62), winner, loser) == {"root": 22, "winner": 40}


def test_another_machines_clock_may_be_ahead() -> None:
    client = span("client", 10, 90, "root", kind="client")
    server = span("server", 40, 110, "client", source=OTHER, kind="server")
    assert told(span("root", 0, 100), client, server) == {"root": 20, "client": 30, "server": 50}


def test_a_child_outside_its_parent_is_dropped_and_a_consumer_is_not_waited_for() -> None:
    assert told(span("root", 100, 200), span("early", 10, 50, "root")) == {"root": 100}
    assert told(span("root", 0, 100), span("job", 20, 80, "root", kind="consumer")) == {"root": 100}


def test_a_chain_of_ten_thousand_does_not_recurse() -> None:
    spans = [span("0", 0, 30_000)]
    spans += [span(str(n), n, 30_000 - n, str(n - 1)) for n in range(1, 10_000)]
    assert sum(told(*spans).values()) == 30_000


def test_spans_that_are_their_own_ancestors_end() -> None:
    tree = SpanTree(
        [
            span("a", 0, 10, "b"),
            span("b", 0, 10, "a"),
            span("root", 0, 20),
            span("self", 0, 5, "self"),
        ]
    )
    assert sum(part.end_ns - part.start_ns for part in critical_path(tree)) == tree.root.duration_ns
    assert len(tree.in_order()) <= 4


spans_of_any_shape = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.integers(-50, 200),
        st.integers(0, 120),
        st.sampled_from([LOCAL, OTHER]),
        st.sampled_from(["", "", "CANCELLED", "INTERNAL"]),
        st.sampled_from(["internal", "client", "server", "consumer"]),
    ),
    max_size=9,
)


@settings(max_examples=400, deadline=None)
@given(spans_of_any_shape)
def test_sections_tile_the_root_exactly(
    shape: list[tuple[int, int, int, Source, str, str]],
) -> None:
    spans = [span("0", 0, 100)]
    for number, (parent, start, length, source, error, kind) in enumerate(shape, start=1):
        spans.append(
            span(
                str(number),
                start,
                start + length,
                str(parent),
                source=source,
                error=error,
                kind=kind,
            )
        )
    tree = SpanTree(spans)
    sections = critical_path(tree)
    assert sum(part.end_ns - part.start_ns for part in sections) == tree.root.duration_ns
    cursor = tree.root.start_ns
    for part in sections:
        assert part.start_ns == cursor
        assert part.end_ns > part.start_ns
        cursor = part.end_ns


def test_an_error_began_where_it_first_showed() -> None:
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
    assert (
        error_origin(SpanTree([span("root", 0, 10), span("a", 0, 5, "root", error="INTERNAL")]))
        is None
    )
