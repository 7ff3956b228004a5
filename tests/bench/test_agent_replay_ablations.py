"""Which requests each technique of reuse saves, alone and beside the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from penstock.bench.agent_replay.findings.costs import Estimate
from penstock.bench.agent_replay.findings.figures import beside_litellm
from penstock.bench.agent_replay.findings.pages import learning, notes
from penstock.bench.agent_replay.findings.reuse import wrong_answers
from penstock.bench.agent_replay.findings.reuse_ablations import (
    ALL,
    Request,
    Reuse,
    reuse_ablation,
    share_saved,
)
from penstock.bench.agent_replay.players.arms import DEFAULTS, DIRECT, LITELLM, LITELLM_SEMANTIC
from penstock.bench.agent_replay.players.load_plan import Answered
from penstock.bench.agent_replay.players.plays import Noted, Play, Workload
from penstock.bench.agent_replay.traffic.recordings import Json, RecordedRun

TOOK_S = 2.0


def request(
    content: str, came_s: float, *, is_alike: bool = False, may_keep: bool = True
) -> Request:
    return Request(content, may_keep, came_s, TOOK_S, is_alike)


@pytest.mark.parametrize(
    ("on", "saved"),
    [
        (Reuse(), 0),
        (Reuse(exact=True), 1),  # the third: the first is answered by then
        (Reuse(coalescing=True), 1),  # the second: the first is in flight
        (Reuse(semantic=True), 1),
        (ALL, 3),
    ],
)
def test_equal_requests_wait_for_one_in_flight_or_take_its_answer(on: Reuse, saved: int) -> None:
    requests = [
        request("a", 0.0),
        request("a", 1.0),
        request("a", 5.0),
        request("b", 6.0, is_alike=True),
        request("c", 7.0),
    ]
    assert share_saved(requests, on) == saved / len(requests)


def test_without_a_cache_each_answer_is_fetched_again_once_it_is_there() -> None:
    requests = [request("a", came_s) for came_s in (0.0, 3.0, 4.0, 6.0)]
    assert share_saved(requests, Reuse(coalescing=True)) == 1 / 4
    assert share_saved(requests, Reuse(exact=True)) == 3 / 4


def test_an_answer_that_calls_tools_is_never_reused() -> None:
    requests = [request("a", came_s, may_keep=False) for came_s in (0.0, 1.0, 5.0)]
    assert share_saved(requests, ALL) == 0


def run(number: int, text: str) -> RecordedRun:
    messages: tuple[Json, ...] = (
        {"role": "user", "content": text},
        {"role": "assistant", "content": f'{{"intent": "{text}"}}'},
    )
    return RecordedRun(f"r{number}", f"corpus-{text}", messages)


RUNS = (run(0, "a"), run(1, "a"), run(2, "like a"))
WORKLOAD = Workload("w3-09", RUNS, (0.0, 5.0, 9.0), 10.0)


def noted(number: int) -> Noted:
    return Noted(f"r{number}", 0, 10, 0, 0, 2, 1.0, 1, 1.0)


def answered(number: int, said: str, reused: str = "") -> Answered:
    message = {"role": "assistant", "content": said}
    return Answered(f"r{number}", 0, 5.0 * number, TOOK_S * 1e3, reused, message)


def test_the_plays_say_which_requests_were_alike() -> None:
    said = [run.messages[-1]["content"] for run in RUNS]
    direct = Play(DIRECT, WORKLOAD, tuple(map(answered, range(3), said)))
    reused = ("", "exact_hit", "semantic_hit")
    through = Play(DEFAULTS, WORKLOAD, tuple(map(answered, range(3), said, reused)))
    third = pytest.approx(1 / 3)
    assert reuse_ablation(direct, through) == {
        "exact cache": (third, third),
        "coalescing": (0.0, pytest.approx(2 / 3)),
        "semantic cache": (third, third),
        "all of them": (pytest.approx(2 / 3), 0.0),
    }


def test_an_arm_that_does_not_say_what_it_reused_is_held_against_the_recording() -> None:
    said = [RUNS[0].messages[-1]["content"]] * 3
    play = Play(LITELLM, WORKLOAD, tuple(map(answered, range(3), said)), (noted(0),))
    assert [each.run for each in wrong_answers(play)] == ["r2"]
    direct = replace(play, arm=DIRECT, noted=tuple(map(noted, range(3))))
    figures = beside_litellm({DIRECT.name: direct, LITELLM.name: play})
    saved = figures["w3_calls_saved_litellm"]
    assert isinstance(saved, Estimate)
    assert saved.value == pytest.approx(2 / 3)
    assert figures["w3_wrong_litellm"] == 1
    assert set(figures) == {"w3_calls_saved_litellm", "w3_wrong_litellm"}
    idle = replace(direct, arm=LITELLM_SEMANTIC)
    arms = {DIRECT.name: direct, LITELLM_SEMANTIC.name: idle}
    assert beside_litellm(arms) == {}, "a cache that reuses nothing did not work"


def test_the_page_says_what_each_block_of_requests_saves() -> None:
    said = [RUNS[0].messages[-1]["content"]] * 3
    reused = ("", "exact_hit", "semantic_hit")
    play = Play(DEFAULTS, WORKLOAD, tuple(map(answered, range(3), said, reused)), (noted(0),))
    assert learning(play, block=2).rows == ((2, 0.5, 0.5, 0.0, 0, 0), (3, 0.0, 1.0, 1.0, 1, 1))


def test_the_page_says_why_another_gateway_is_not_there() -> None:
    assert "`make peers`" in notes({}, {})[-1]
    left_out = {("w3-09-gateways", LITELLM.title): "it does not answer"}
    assert (
        notes({}, left_out)[-1]
        == f"{LITELLM.title} was left out of w3-09-gateways: it does not answer."
    )
    played = {"w3-09-gateways": {LITELLM.name: Play(LITELLM, WORKLOAD, ())}}
    assert "one cache at a time" in notes(played, {})[-1]
