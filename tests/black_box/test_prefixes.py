"""What a prompt lost of the provider's prefix cache: in the receipt, by `ExplainPrefix` and
`penstock explain --prefix`, and as an incident."""

from __future__ import annotations

import asyncio
import json

import pytest
from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import prefixes_pb2 as pb
from penstock.api.telemetry.v1 import telemetry_pb2
from penstock.testkit.eventually import eventually

from .calls import Caller, chat, refused
from .configuration import secret_of
from .processes import command

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
BYPASS = {"bypass": True}
RULES = "Answer as the harbour master would, and name the berth. " * 96
"""About 1,350 tokens, as the provider counts: longer than the least that providers keep."""
READ = 1_280
"""What can be read of them, in the steps of the provider's cache."""
CLOCK = "The time is 2026-11-24 10:00:{:02}, by the clock of the harbour. "


def conversation(*said: str, second: int | None = None) -> inference_pb2.GenerateTask:
    """Instructions, with the time at their head where it is given, and turns of the user."""
    clock = "" if second is None else CLOCK.format(second)
    task = chat(said[0], system=clock + RULES)
    for text in said[1:]:
        task.messages.add(role=inference_pb2.ROLE_USER, content=text)
    return task


async def asked(
    caller: Caller, task: inference_pb2.GenerateTask, cached: int = 0, run_id: str = ""
) -> common_pb2.Receipt:
    """The receipt of a conversation of which the provider reads so many tokens from its cache."""
    last = task.messages[-1].content
    caller.api.system.provider.answer(last, "berth 7", cached_tokens=cached)
    return (await caller.generate(task, model="chat", cache=BYPASS, run_id=run_id)).receipt


async def explained(caller: Caller, **request: str) -> list[pb.PromptPrefix]:
    answer = await caller.api.router.ExplainPrefix(
        pb.ExplainPrefixRequest(**request), metadata=caller.metadata
    )
    return list(answer.prompts)


async def test_a_clock_at_the_head_is_named_priced_and_explained(caller: Caller) -> None:
    # given a conversation whose instructions begin with the time
    first = await asked(caller, conversation("where", second=1), run_id="clocked")
    second = await asked(caller, conversation("where", second=2), run_id="clocked")
    # then the first is known of no loss, and the second names the clock
    assert not first.HasField("prefix_loss")
    loss = second.prefix_loss
    assert loss.outcome == prefix_pb2.PREFIX_OUTCOME_BROKEN
    assert loss.prefix_break == prefix_pb2.PrefixBreak(
        kind=prefix_pb2.PREFIX_BREAK_KIND_CLOCK, place="turns[0]", role="system", line=1
    )
    # and costs what the provider's cache would have saved: 2.7 micro-dollars a token
    assert loss.lost_tokens >= 1_024
    assert loss.lost_microusd == loss.lost_tokens * 27 // 10
    [shown] = await explained(caller, request_id=second.request_id)
    assert (shown.lost_tokens, shown.lost_microusd) == (loss.lost_tokens, loss.lost_microusd)
    assert (shown.previous_request_id, shown.repair) == (first.request_id, "later_system_turn")
    assert "a time in it changed" in shown.text
    assert "harbour" not in str(shown) and "2026-" not in str(shown)
    run = await explained(caller, conversation="clocked")
    assert [prompt.request_id for prompt in run] == [second.request_id, first.request_id]


async def test_a_prefix_that_the_provider_dropped_is_its_own_doing(caller: Caller) -> None:
    # given a conversation that only goes on, and a provider that reads what it can
    said = ("which ship", "and when", "and who", "and why")
    await asked(caller, conversation(*said[:1]))
    read = await asked(caller, conversation(*said[:2]), cached=READ)
    assert not read.HasField("prefix_loss")
    # when the provider reads nothing
    dropped = await asked(caller, conversation(*said[:3]))
    # then it is named, and no break
    loss = dropped.prefix_loss
    assert loss.outcome == prefix_pb2.PREFIX_OUTCOME_EVICTED
    assert not loss.HasField("prefix_break")
    assert (loss.lost_tokens, loss.lost_microusd) == (READ, READ * 27 // 10)
    [shown] = await explained(caller, request_id=dropped.request_id)
    assert "the provider did not keep it" in shown.text
    # and what is read again is no loss
    again = await asked(caller, conversation(*said), cached=READ)
    assert not again.HasField("prefix_loss")


async def test_what_is_moved_out_of_the_way_breaks_nothing(caller: Caller) -> None:
    """Tools in another order are put in order before they are sent."""
    receipts = []
    for names in (("moor", "tow"), ("tow", "moor")):
        task = conversation("who tows")
        for name in names:
            task.tools.add(name=name, parameters_json='{"type": "object"}')
        receipts.append(await asked(caller, task, cached=READ))
    [shown] = await explained(caller, request_id=receipts[1].request_id)
    assert not shown.HasField("prefix_break")
    assert list(shown.repairs_applied) == ["stable_prefix"]


async def test_others_prompts_are_not_there_and_bad_questions_are_refused(caller: Caller) -> None:
    receipt = await asked(caller, conversation("mine"), run_id="mine")
    other = caller.api.caller()
    for request in ({"request_id": receipt.request_id}, {"conversation": "mine"}):
        assert await explained(caller, **request)
        told = await refused(explained(other, **request))
        assert (told.code, told.field) == ("NOT_FOUND", next(iter(request)))
    unknown = await refused(explained(caller, request_id="0" * 32))
    assert (unknown.code, unknown.field) == ("NOT_FOUND", "request_id")
    for bad in ({}, {"request_id": receipt.request_id, "conversation": "mine"}):
        assert (await refused(explained(caller, **bad))).code == "INVALID_ARGUMENT"


async def test_the_command_says_what_broke_a_prefix(caller: Caller) -> None:
    for second in (1, 2):
        receipt = await asked(caller, conversation("say", second=second), run_id="said")
    where = {"address": caller.api.system.addresses["router"], "key": secret_of(caller.key)}
    shown, as_json, run, neither = await asyncio.gather(
        command("cli", "explain", receipt.request_id, "--prefix", **where),
        command("cli", "explain", "--prefix", receipt.request_id, "--json", **where),
        command("cli", "explain", "--prefix", "--run", "said", **where),
        command("cli", "explain", "--prefix", **where),
    )
    assert (shown.status, run.status) == (0, 0)
    for said in (receipt.request_id, "turns[0] (system), line 1: a time in it changed"):
        assert said in " ".join(shown.output.split())
    [prompt] = json.loads(as_json.output)["prompts"]
    assert prompt["prefix_break"]["kind"] == "PREFIX_BREAK_KIND_CLOCK"
    rows = [line for line in run.output.splitlines() if "clock at turns[0] line 1" in line]
    assert len(rows) == 1 and receipt.request_id[:8] in rows[0]
    assert (neither.status, len(neither.errors.splitlines())) == (2, 1)


async def test_a_fall_of_a_tenants_hit_share_opens_an_incident_that_names_the_cause(
    caller: Caller,
) -> None:
    # given a tenant whose prefixes are read
    for _ in range(56):
        await asked(caller, conversation("steady", "on"), cached=READ)
    # when a clock comes into its instructions
    for second in range(12):
        await asked(caller, conversation("steady", "on", second=second))
    # then an incident names it
    api = caller.api

    async def found() -> telemetry_pb2.Incident:
        answer = await api.telemetry.ListIncidents(
            telemetry_pb2.ListIncidentsRequest(), metadata=api.token
        )
        incidents = [
            one
            for one in answer.incidents
            if any(part.subject == f"chat of {caller.key}" for part in one.contributions)
        ]
        assert len(incidents) == 1
        return incidents[0]

    incident = await eventually(found, timeout_s=60.0)
    features = {(part.feature, part.subject) for part in incident.contributions}
    assert ("prefix_hit_share", f"chat of {caller.key}") in features
    if incident.detector == "prefixes":  # else another finding of the router is the worse one
        assert "a time in the prompt" in incident.summary
