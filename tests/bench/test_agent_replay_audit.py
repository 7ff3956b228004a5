"""The audit of the replay: which reused answers are wrong, which shaped prompts say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from penstock.bench.agent_replay.findings.audit import (
    Verdict,
    best_of,
    compare,
    prompt_faults,
    writes,
)
from penstock.bench.agent_replay.findings.costs import (
    added_share,
    calls_saved,
    cost_cut,
    latency_cut,
    median,
)
from penstock.bench.agent_replay.findings.ledger import ledger_error
from penstock.bench.agent_replay.findings.mix import PerCall, curve, cut, share_for
from penstock.bench.agent_replay.findings.reuse import audit
from penstock.bench.agent_replay.players.arms import DEFAULTS, DIRECT, OPT_INS
from penstock.bench.agent_replay.players.load import with_receipt
from penstock.bench.agent_replay.players.load_plan import Answered
from penstock.bench.agent_replay.players.plays import Noted, Play, Workload, paired
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST
from penstock.bench.agent_replay.traffic.recordings import Json, RecordedRun
from penstock.prompts.prefix import NOTE


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def called(name: str, arguments: str) -> Json:
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.mark.parametrize(
    ("answer", "recorded", "verdict"),
    [
        (said("Gate 12."), said("Gate 12."), Verdict.EQUAL),
        (said('{"a":1, "b":2}'), said('{"b": 2, "a": 1}'), Verdict.EQUAL),
        (said("It is gate 12 now."), said("Gate 12."), Verdict.ALIKE),
        (said("Gate 13."), said("Gate 12."), Verdict.WRONG),
        (said("Flight HAT001 at 10:30."), said("Flight HAT002 at 10:30."), Verdict.WRONG),
        (said('{"intent": "a"}'), said('{"intent": "b"}'), Verdict.WRONG),
        (called("get_user", '{"id": 1}'), called("get_user", '{ "id":1 }'), Verdict.EQUAL),
        (called("get_user", '{"id": 1}'), called("get_user", '{"id": 2}'), Verdict.WRONG),
        (called("get_user", "{}"), said("Done."), Verdict.WRONG),
    ],
)
def test_an_answer_is_compared_with_the_recorded_one(
    answer: Json, recorded: Json, verdict: Verdict
) -> None:
    assert compare(answer, recorded) is verdict


def test_of_several_recorded_answers_the_nearest_counts() -> None:
    recorded = [said("Gate 13."), said("Gate 12.")]
    assert best_of(said("Gate 12."), recorded) is Verdict.EQUAL
    assert best_of(said("Gate 14."), recorded) is Verdict.WRONG


def test_tools_that_are_not_known_to_read_write() -> None:
    assert writes(called("cancel_reservation", "{}"))
    assert not writes(called("get_reservation_details", "{}"))
    assert not writes(said("cancel_reservation"))


RESULT = '{"flights": [1.50, 2, 3], "seats": {"economy": 9, "business": 2}}'
ASKED = {
    "messages": [
        {"role": "system", "content": "Time: 10:00\nBe brief."},
        {"role": "user", "content": "Which?"},
        called("get_flights", "{}"),
        {"role": "tool", "content": RESULT, "tool_call_id": "c1"},
    ],
    "tools": [{"type": "function", "function": {"name": "get_flights", "parameters": {"a": 1}}}],
}


def with_messages(changes: Mapping[int, Json], *more: Json) -> Json:
    messages = [changes.get(place, turn) for place, turn in enumerate(ASKED["messages"])]
    return {**ASKED, "messages": [*messages, *more]}


def test_a_prompt_says_the_same_with_moved_lines_and_shorter_results() -> None:
    moved = with_messages(
        {
            0: {"role": "system", "content": "Be brief."},
            3: {**ASKED["messages"][3], "content": RESULT.replace(" ", "")},
        },
        {"role": "system", "content": NOTE + "Time: 10:00"},
    )
    assert prompt_faults(moved, ASKED) == []


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (with_messages({0: {"role": "system", "content": "Be brief."}}), "instructions"),
        (with_messages({1: {"role": "user", "content": "Which one?"}}), "turn 0"),
        (with_messages({2: called("get_flights", '{"a": 1}')}), "turn 1"),
        (
            with_messages({3: {**ASKED["messages"][3], "content": RESULT.replace("1.50", "1.5")}}),
            "turn 2",
        ),
        (with_messages({}, {"role": "user", "content": "More."}), "number of turns"),
        ({**ASKED, "tools": []}, "tools"),
    ],
)
def test_a_prompt_that_lost_something_is_found(sent: Json, fault: str) -> None:
    assert prompt_faults(sent, ASKED) == [fault]


RUNS = tuple(
    RecordedRun(f"r{n}", f"t{n}", ({"role": "user", "content": f"{n}?"}, said(f"answer {n}")))
    for n in range(4)
)
WORKLOAD = Workload("w3-09", RUNS, (0.0,) * 4, 1.0)


def noted(run: str, tokens: int) -> Noted:
    return Noted(run, 0, tokens, 0, 0, 0, service_ms=1.0, batch=1, took_ms=1.0)


def answered(run: str, answer: Json, reused: str = "", **receipt: object) -> Answered:
    latency_ms = 10.0 if reused else 100.0
    return Answered(run, 0, 0.0, latency_ms, reused, answer, **receipt)  # type: ignore[arg-type]


DIRECTLY = Play(
    DIRECT,
    WORKLOAD,
    tuple(answered(run.name, run.messages[-1]) for run in RUNS),
    tuple(noted(run.name, 1_000_000) for run in RUNS),
)
THROUGH = Play(
    DEFAULTS,
    WORKLOAD,
    (
        answered("r0", said("answer 0"), paid_microusd=3_000_000),
        answered("r1", said("answer 1"), "exact_hit", savings={"exact_cache": 3_000_000}),
        answered("r2", said("answer 3"), "semantic_hit", savings={"semantic_cache": 3_000_000}),
        answered("r3", said("answer 3"), paid_microusd=3_000_000),
    ),
    (noted("r0", 1_000_000), noted("r3", 1_000_000)),
)


def test_half_of_the_calls_and_of_the_cost_are_saved() -> None:
    assert cost_cut([(DIRECTLY, THROUGH)], WRITES_COST).value == 0.5
    saved = calls_saved(THROUGH)
    assert saved.value == 0.5
    assert saved.interval is None, "four clusters are too few for one"
    # A client that asks r0 and r1 once each, and has nothing to send for the others.
    assert calls_saved(THROUGH, {"t0": 1, "t1": 1, "t2": 1}).value == 0.25
    assert latency_cut(DIRECTLY, THROUGH, median).value == pytest.approx(1 - 55 / 100)


def test_a_run_that_failed_in_one_arm_saves_nothing() -> None:
    failed = Answered("r3", 0, 0.0, 5.0, error="status 503")
    through = Play(DEFAULTS, WORKLOAD, (*THROUGH.answered[:3], failed), THROUGH.noted[:1])
    before, after = paired(DIRECTLY, through)
    assert [run.name for run in before.workload.runs] == ["r0", "r1", "r2"]
    assert len(before.noted) == len(before.answered) == len(after.answered) == 3
    assert cost_cut([(before, after)], WRITES_COST).value == pytest.approx(2 / 3)


def test_reused_answers_are_audited_by_technique() -> None:
    found = audit([THROUGH])
    assert dict(found.reused) == {"exact_hit": 1, "semantic_hit": 1}
    assert (found.wrong["exact_hit"], found.wrong["semantic_hit"]) == (0, 1)
    assert found.bounds("semantic_hit").high == 1.0


def test_receipts_that_say_what_was_saved_have_no_error() -> None:
    figures = ledger_error([(DIRECTLY, THROUGH)])
    assert {name: error.value for name, error in figures.items()} == {
        "ledger_error": 0.0,
        "ledger_error_defaults": 0.0,
        "ledger_paid_error": 0.0,
    }


def test_a_saving_that_direct_callers_have_as_well_is_an_error() -> None:
    cached = tuple(Noted(run.name, 0, 1_000_000, 1_000_000, 0, 0, 1.0, 1, 1.0) for run in RUNS)
    direct = Play(DIRECT, WORKLOAD, DIRECTLY.answered, cached)
    claims = {"prefix_cache": 2_700_000}
    through = Play(
        DEFAULTS,
        WORKLOAD,
        tuple(answered(run.name, run.messages[-1], savings=claims) for run in RUNS),
        cached,
    )
    assert ledger_error([(direct, through)])["ledger_error"].value > 1


def test_the_error_of_the_defaults_is_not_hidden_by_what_the_opt_ins_save() -> None:
    # given opt-ins whose receipts are right about much, and defaults that claim the double
    twice = tuple(
        replace(each, savings={name: 2 * saved for name, saved in each.savings.items()})
        for each in THROUGH.answered
    )
    opt_ins = replace(THROUGH, arm=OPT_INS)
    pairs = [(DIRECTLY, opt_ins)] * 9 + [(DIRECTLY, replace(THROUGH, answered=twice))]
    figures = ledger_error(pairs)
    assert figures["ledger_error"].value == pytest.approx(0.1)
    assert figures["ledger_error_defaults"].value == pytest.approx(1.0)


def test_errors_and_added_times_have_intervals_over_clusters_of_runs() -> None:
    runs = tuple(replace(RUNS[0], name=f"r{n}", cluster=f"t{n}") for n in range(8))
    workload = Workload("w1-timed", runs, (0.0,) * 8, 1.0)
    notes = tuple(noted(run.name, 1_000_000) for run in runs)
    direct = Play(DIRECT, workload, tuple(answered(run.name, {}) for run in runs), notes)
    claims = [{"prefix_cache": 3_000_000 * (n % 2)} for n in range(8)]
    says = tuple(
        answered(run.name, {}, savings=said) for run, said in zip(runs, claims, strict=True)
    )
    # given receipts of which every other one says that a call was free, and savings of half
    through = Play(DEFAULTS, workload, says, notes[::2])
    error = ledger_error([(direct, through)])["ledger_error"]
    assert error.value == 0.0
    assert error.interval is not None and (error.interval.n, error.interval.low) == (8, 0.0)
    # then it is 0 only for this half: drawn anew, receipts and savings are of the same calls
    assert error.interval.high == 0.0
    added = added_share(through)
    assert added.value == pytest.approx(99.0), "100 ms at the caller, 1 ms at the provider"
    assert added_share(direct).interval is not None


def test_a_receipt_is_read_by_technique() -> None:
    receipt = {
        "cost": {"paid_microusd": "7"},
        "savings": [
            {"technique": "prefix_cache", "microusd": "2"},
            {"technique": "prefix_cache", "microusd": "3"},
            {"technique": "semantic_cache"},
        ],
    }
    read = with_receipt(answered("r0", {}), receipt)
    assert (read.paid_microusd, read.savings) == (7, {"prefix_cache": 5, "semantic_cache": 0})


def test_a_mix_saves_more_the_more_of_it_is_saved_and_some_claims_are_never_reached() -> None:
    kinds = {"w1": PerCall(10, 10), "w3": PerCall(10, 1), "w4": PerCall(0, 0)}
    x, y = curve(kinds)
    assert y == sorted(y)
    assert cut(list(kinds.values()), (0.5, 0.5, 0)) == pytest.approx(0.45)
    assert share_for(0.45, x, y) == pytest.approx(0.45, abs=0.01)
    assert share_for(0.95, x, y) == -1.0
