"""The sets of tools that the benchmark draws, and what it counts as kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from penstock.bench.harness.options import Options
from penstock.bench.tool_pruning.data import ANSWERS, BFCL, REQUESTS, halves, requests, tool_set
from penstock.bench.tool_pruning.fitting import fitted
from penstock.bench.tool_pruning.ranked import (
    RankedSet,
    keep_by_number,
    keep_by_probability,
)
from penstock.prompts.conversation import ToolSpec

GENERATED = requests(Options())


def bfcl(folder: Path, *, answers: bool) -> Options:
    """A data folder with one request of BFCL's form."""
    (folder / BFCL).mkdir()
    function = {"name": "b", "description": "does b", "parameters": {"type": "dict"}}
    record = {
        "id": "live_multiple_7-3-2",
        "question": [[{"role": "system", "content": "s"}, {"role": "user", "content": "do b"}]],
        "function": [{**function, "name": "a"}, function],
    }
    (folder / BFCL / REQUESTS).write_text(json.dumps(record))
    if answers:
        answer = {"id": record["id"], "ground_truth": [{"b": {}}]}
        (folder / BFCL / ANSWERS).write_text(json.dumps(answer))
    return Options(folder)


def ranked(probable: list[float], needed: int) -> RankedSet:
    tools = tuple(ToolSpec(f"tool_{place}", "does it", "{}") for place in range(len(probable)))
    request = GENERATED[0]._replace(needed=f"tool_{needed}")
    tokens = tuple(10 for _ in tools)
    return RankedSet(request, tools, tokens, ((0.0, 0.0),) * len(tools), tuple(probable))


def test_a_request_has_its_group_its_text_and_the_tool_of_its_answer(tmp_path: Path) -> None:
    [request] = requests(bfcl(tmp_path, answers=True))
    assert (request.group, request.text, request.needed) == ("3", "do b", "b")
    assert [tool.name for tool in request.tools] == ["a", "b"]


def test_without_the_answers_generated_requests_stand_in_and_no_page_is_written(
    tmp_path: Path,
) -> None:
    options = bfcl(tmp_path, answers=False)
    assert requests(options) == GENERATED
    assert ANSWERS in options.proves_nothing()


def test_no_group_is_in_both_halves() -> None:
    chosen_on, reported = halves(Options())
    assert not {one.group for one in chosen_on} & {one.group for one in reported}
    assert len(chosen_on) + len(reported) == len(GENERATED)


@pytest.mark.parametrize("size", [30, 60, 120])
def test_a_set_has_the_requests_own_tools_and_as_many_others_as_it_takes(size: int) -> None:
    request = GENERATED[5]
    others = [one for one in GENERATED if one.group != request.group]
    tools = tool_set(request, others, size, 1)
    assert len({tool.name for tool in tools}) == len(tools) == size
    assert set(request.tools) <= set(tools)
    assert tools == tool_set(request, others, size, 1)
    assert tools != tool_set(request, others, size, 2)


def test_what_is_kept_is_right_only_with_the_needed_tool() -> None:
    probable = [0.9, 0.06, *[0.005] * 8]
    for needed, right in ((0, True), (1, True), (2, False)):
        kept = keep_by_probability(ranked(probable, needed), 0.05)
        assert (kept.right, kept.tools, kept.cut) == (right, 2, pytest.approx(0.8))
        assert keep_by_number(ranked(probable, needed), 1).right is (needed == 0)
    flat = keep_by_probability(ranked([0.1] * 10, 3), 0.05)
    assert (flat.right, flat.tools, flat.cut) == (True, 10, 0)


def test_the_weights_that_made_choices_are_found_again() -> None:
    rng = np.random.default_rng(1)
    sets = []
    for _ in range(800):
        features = [(float(one), float(other)) for one, other in rng.random((30, 2))]
        logits = np.array([6 * one + 3 * other for one, other in features])
        shares = np.exp(logits - logits.max())
        needed = int(rng.choice(30, p=shares / shares.sum()))
        sets.append(ranked([1 / 30] * 30, needed)._replace(features=tuple(features)))
    weights = fitted(sets)
    assert weights.similarity == pytest.approx(6, rel=0.15)
    assert weights.words == pytest.approx(3, rel=0.15)
