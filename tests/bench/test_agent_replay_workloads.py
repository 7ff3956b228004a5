"""Workloads of the replay: requests as two clients write them, how turns are known again."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.agent_replay.findings.audit import prompt_faults
from penstock.bench.agent_replay.players.ablations import ALL, NONE, shaped
from penstock.bench.agent_replay.players.load_plan import PlannedRun, Target, read_plan, write_plan
from penstock.bench.agent_replay.provider.upstream import Recording
from penstock.bench.agent_replay.traffic.arrivals import due_times_s
from penstock.bench.agent_replay.traffic.closed_answers import (
    drawn,
    first_asked,
    questions,
    repeated_share,
)
from penstock.bench.agent_replay.traffic.heads import KNOWN, STYLES, head_of
from penstock.bench.agent_replay.traffic.recordings import (
    RecordedRun,
    first_calls,
    read_runs,
    tau_runs,
    write_runs,
)
from penstock.bench.agent_replay.traffic.requests import Writing, chat_body
from penstock.bench.agent_replay.traffic.turn_keys import turn_key
from penstock.bench.harness.options import Options
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import split_volatile

TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {}}} for name in "abcdefgh"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
TURNS = (
    {"role": "system", "content": "Be brief.\nBe kind."},
    {"role": "user", "content": "Which flight?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": '{"flight": 1}', "tool_call_id": "c1"},
    {"role": "assistant", "content": "The first."},
)
RUN = RecordedRun("r1", "t1", TURNS, TOOLS, {"temperature": 0.0})
WITH_HEAD = RecordedRun("r1", "t1", TURNS, TOOLS, {}, "labelled clock")


def test_a_run_has_a_call_for_each_turn_of_the_assistant() -> None:
    assert RUN.ends == (2, 4)
    assert chat_body(RUN, 1, Writing.AS_RECORDED)["messages"] == list(TURNS[:4])
    assert first_calls(RUN, 1).messages == TURNS[:3]


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", [RUN, WITH_HEAD])
    assert read_runs(tmp_path / "runs") == [RUN, WITH_HEAD]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    target = Target("127.0.0.1:1", "/v1", {"a": "b"}, "ca.crt", dictionary=True)
    runs = [PlannedRun("r1", 0.5, ({"model": "m"}, {"model": "n"}))]
    write_plan(tmp_path / "plan", target, runs)
    assert read_plan(tmp_path / "plan") == (target, runs)


def test_a_head_changes_with_every_call_and_is_the_same_when_asked_again() -> None:
    for style in STYLES:
        heads = [head_of(style, "r1", call) for call in range(20)]
        assert len(set(heads)) == 20
        assert heads == [head_of(style, "r1", call) for call in range(20)]


def test_the_rule_knows_three_styles_of_heads_and_not_the_others() -> None:
    for style in STYLES:
        _, moved = split_volatile(head_of(style, "r1", 3) + "\nBe brief.")
        assert bool(moved) == (style in KNOWN), style


def test_an_agent_writes_the_head_first_and_a_careful_client_last() -> None:
    head = head_of("labelled clock", "r1", 0)
    recorded = chat_body(WITH_HEAD, 0, Writing.AS_RECORDED)
    careful = chat_body(WITH_HEAD, 0, Writing.CAREFUL)
    assert recorded["messages"][0]["content"] == f"{head}\nBe brief.\nBe kind."
    assert careful["messages"] == [*TURNS[:2], {"role": "system", "content": head}]
    assert careful["tools"] == list(TOOLS) != recorded["tools"]
    assert sorted(map(str, recorded["tools"])) == sorted(map(str, TOOLS))


def test_a_turn_is_known_whatever_is_done_to_instructions_tools_and_results() -> None:
    recording = Recording([RUN])
    careful = chat_body(WITH_HEAD, 1, Writing.CAREFUL)
    shaped = [*careful["messages"][:3], {**TURNS[3], "content": "shorter"}]
    assert recording.find(careful | {"messages": shaped}) == (RUN, 1)
    assert recording.find({"messages": [{"role": "user", "content": "Which train?"}]}) is None


def test_runs_that_ask_the_same_are_answered_in_turn() -> None:
    twin = RecordedRun("r2", "t1", (*TURNS[:4], {"role": "assistant", "content": "The last."}))
    recording = Recording([RUN, twin])
    found = [recording.find({"messages": list(TURNS[:4])}) for _ in range(3)]
    assert found == [(RUN, 1), (twin, 1), (RUN, 1)]


def test_the_schema_of_an_answer_tells_equal_questions_apart() -> None:
    keys = {
        turn_key(TURNS[:2], {"response_format": {"json_schema": {"name": name}}})
        for name in ("banking77", "clinc150")
    }
    assert len(keys) == 2


def test_starts_begin_at_once_and_have_the_mean_rate() -> None:
    due_s = due_times_s([float(second) for second in range(1_000)], 100, rate=2.0)
    assert (len(due_s), due_s[0], due_s[-1]) == (100, 0.0, pytest.approx(99 / 2.0))
    assert due_s == sorted(due_s)
    with pytest.raises(ValueError, match="as many arrivals"):
        due_times_s([0.0, 1.0], 3, rate=1.0)


def test_closed_answers_repeat_more_the_higher_the_exponent() -> None:
    asked = questions(Options())
    shares = [repeated_share(drawn(asked, 200, zipf)) for zipf in (0.0, 0.6, 1.1)]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert len({run.name for run in drawn(asked, 200, 1.1)}) == 200


def test_shaping_changes_only_what_its_policy_says() -> None:
    body = chat_body(WITH_HEAD, 1, Writing.AS_RECORDED)
    assert shaped(body, Optimiser(NONE)) == body
    optimiser = Optimiser(ALL)
    shaped(chat_body(WITH_HEAD, 0, Writing.AS_RECORDED), optimiser)  # In another order.
    moved = shaped(body, optimiser)
    assert [tool["function"]["name"] for tool in moved["tools"]] == list("abcdefgh")
    assert moved["messages"][0]["content"] == "Be brief.\nBe kind."
    assert prompt_faults(moved, body) == []


def test_a_dictionary_has_to_send_each_request_once() -> None:
    asked = drawn(questions(Options()), 200, 1.1)
    sent = first_asked(asked)
    assert sent.total() == len({run.cluster for run in asked})
    assert first_asked([*asked, *asked]) == sent


def test_generated_conversations_stand_in_where_there_is_no_data() -> None:
    options = Options()
    run = tau_runs(options, development=True)[0]
    assert options.stood_in == {"tau-bench"}
    calls = [turn["tool_calls"][0]["id"] for turn in run.messages if turn.get("tool_calls")]
    results = [turn["tool_call_id"] for turn in run.messages if turn["role"] == "tool"]
    assert calls == results
    assert results
