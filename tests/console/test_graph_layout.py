"""The service graph: no label covers another label or a node, whoever calls whom."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from penstock.console.drawing.graph_layout import Layout, lay_out, node_box, text_box

STACK = [
    ("client", "router"),
    ("client", "shop"),
    ("agent", "router"),
    ("router", "cache"),
    ("router", "limiter"),
    ("router", "batcher"),
    ("router", "inference-onnx-quantized"),
    ("cache", "inference-onnx-quantized"),
    ("batcher", "inference-onnx-quantized"),
    ("batcher", "inference-upstream"),
    ("inference-onnx-quantized", "router"),
    ("inference-upstream", "router"),
    ("batcher", "router"),
    ("scaler", "router"),
    ("scaler", "batcher"),
]


def covered(layout: Layout, labels: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Pairs of what overlaps, of labels with labels and of labels with nodes."""
    texts = {
        f"{pair[0]}→{pair[1]}": text_box(place, labels[pair])
        for pair, place in layout.labels.items()
    }
    nodes = {name: node_box(place, name) for name, place in layout.nodes.items()}
    found = [(a, b) for a, b in combinations(texts, 2) if texts[a].overlaps(texts[b])]
    return found + [(a, b) for a in texts for b in nodes if texts[a].overlaps(nodes[b])]


def test_every_label_of_the_stacks_graph_can_be_read() -> None:
    labels = dict.fromkeys(STACK, "1234 · 1234.5 ms")
    layout = lay_out(labels)
    assert set(layout.labels) == set(labels)
    assert covered(layout, labels) == []


@pytest.mark.parametrize("seed", range(20))
def test_labels_of_any_sparse_graph_can_be_read(seed: int) -> None:
    rng = random.Random(seed)
    names = [f"service-{number}" for number in range(8)]
    pairs = {(a, b) for a, b in combinations(names, 2) if rng.random() < 0.3}
    labels = dict.fromkeys(sorted(pairs), "123 · 45.6 ms")
    assert covered(lay_out(labels), labels) == [], f"seed {seed}"


def test_a_callee_stands_right_of_its_callers_and_long_lines_bend() -> None:
    layout = lay_out({("a", "b"): "1", ("b", "c"): "2", ("a", "c"): "3"})
    assert layout.nodes["a"].x < layout.nodes["b"].x < layout.nodes["c"].x
    assert len(layout.lines["a", "c"]) == 3
    assert layout.lines["a", "c"][1].y != layout.nodes["b"].y


def test_services_that_call_each_other_or_themselves_are_drawn() -> None:
    layout = lay_out({("a", "b"): "1", ("b", "a"): "2", ("a", "a"): "3"})
    assert set(layout.nodes) == {"a", "b"}
    assert ("a", "a") not in layout.lines


def test_no_edges_make_no_graph() -> None:
    layout = lay_out({})
    assert (layout.nodes, layout.lines, layout.labels) == ({}, {}, {})
