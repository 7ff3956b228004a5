"""What a prompt lost of the provider's prefix cache: named, priced, and for its organisation."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import prefixes_pb2, router_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.prompts.prefix_breaks import BreakKind, PrefixBreak
from penstock.prompts.prefix_cost import PrefixOutcome
from penstock.router.api.prefix_service import MAX_PROMPTS, explain_prefix
from penstock.router.prompts.conversations import conversation_of
from penstock.router.prompts.prefixes import (
    ACCOUNTS_KEPT,
    NO_REPAIRS,
    Prefixes,
    Repairs,
    break_to_proto,
    outcome_name,
)
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call, Principal
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.service.current import Current
from penstock.tasks.kinds import kind_of
from penstock.testkit.clock import FakeClock

PRICES = Prices(
    {
        "chat": ModelPrice(
            name="chat",
            input_microusd_per_mtok=3_000_000,
            cached_input_microusd_per_mtok=300_000,
        ),
        "plain": ModelPrice(name="plain", input_microusd_per_mtok=3_000_000),
    }
)
ACME, OTHER = Call(Principal("acme"), run_id="run"), Call(Principal("other"), run_id="run")
CLOCK = "You help.\nCurrent time: 2026-11-24T10:00:0{}Z\nBe brief."


def chat(system: str = "You help.", *said: str) -> inference_pb2.Task:
    task = inference_pb2.Task()
    task.generate.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    for text in ("what is in stock", *said):
        task.generate.messages.add(role=inference_pb2.ROLE_USER, content=text)
    return task


def usage(cached: int = 0, tokens: int = 2_100, **more: bool) -> common_pb2.Usage:
    return common_pb2.Usage(
        input_tokens=tokens, output_tokens=5, cached_input_tokens=cached, **more
    )


@dataclass
class Asking:
    """Calls of organisations, whose requests are numbered."""

    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.prefixes = Prefixes(Current(PRICES), self.clock)
        self.count = 0

    def ask(
        self,
        task: inference_pb2.Task,
        used: common_pb2.Usage,
        *,
        model: str = "chat",
        call: Call = ACME,
        instance: str = "a",
        repairs: Repairs = NO_REPAIRS,
        affinity: str = "",
    ) -> prefix_pb2.PrefixLoss | None:
        options = router_pb2.CallOptions(affinity_key=affinity)
        kind = kind_of(task)
        request = ResolvedRequest(options, kind, task, model, kind.estimate(task))
        sent = self.prefixes.sent(call, request, conversation_of(task.generate), repairs)
        self.count += 1
        return sent.answered(f"r{self.count}", instance, used)

    def explained(self, request_id: str = "", **asked: str) -> prefixes_pb2.PromptPrefix:
        request = prefixes_pb2.ExplainPrefixRequest(request_id=request_id)
        [shown] = explain_prefix(self.prefixes, request, asked.get("organisation", "acme")).prompts
        return shown

    def of_conversation(self, name: str, organisation: str = "acme") -> list[str]:
        request = prefixes_pb2.ExplainPrefixRequest(conversation=name)
        shown = explain_prefix(self.prefixes, request, organisation).prompts
        return [prompt.request_id for prompt in shown]


def test_a_clock_in_the_instructions_is_named_with_its_place_and_its_price() -> None:
    asking = Asking()
    assert asking.ask(chat(CLOCK.format(0)), usage()) is None
    loss = asking.ask(chat(CLOCK.format(1), "and"), usage())
    assert loss == prefix_pb2.PrefixLoss(
        outcome=prefix_pb2.PREFIX_OUTCOME_BROKEN,
        prefix_break=prefix_pb2.PrefixBreak(
            kind=prefix_pb2.PREFIX_BREAK_KIND_CLOCK, place="turns[0]", role="system", line=2
        ),
        lost_tokens=2_048,
        lost_microusd=2_048 * 27 // 10,
    )
    shown = asking.explained("r2")
    assert (shown.prefix_break, shown.previous_request_id) == (loss.prefix_break, "r1")
    assert (shown.repair, shown.repair_enabled) == ("later_system_turn", False)
    assert shown.text == (
        "2,048 of 2,048 tokens were not read from the provider's cache, which cost "
        "$0.005529: the prompt broke it. The prompt departs from the one before it at turns[0] "
        "(system), line 2: a time in it changed. later_system_turn in a rule of prompts may mend "
        "it without loss."
    )


async def test_a_break_that_goes_on_says_since_when() -> None:
    asking = Asking()
    for second in range(4):
        asking.ask(chat(CLOCK.format(second)), usage())
        await asking.clock.advance(10.0)
    shown = asking.explained("r4")
    assert (shown.breaks_in_row, shown.since_request_id) == (3, "r2")
    assert shown.sent_unix_ms - shown.since_unix_ms == 20_000
    assert "a time in it changed, as did the 2 prompts before it." in shown.text


def test_a_prefix_that_was_read_costs_nothing_and_stands_in_no_receipt() -> None:
    asking = Asking()
    asking.ask(chat(), usage())
    assert asking.ask(chat("You help.", "and"), usage(2_048, 2_200)) is None
    shown = asking.explained("r2")
    assert (shown.outcome, shown.lost_tokens) == (prefix_pb2.PREFIX_OUTCOME_READ, 0)
    assert not shown.HasField("prefix_break")
    assert shown.text == "2,048 tokens were read from the provider's cache, all that could be."


def test_a_provider_that_has_shown_that_it_caches_is_named_where_it_did_not_keep_a_prefix() -> None:
    asking = Asking()
    asking.ask(chat(), usage())
    assert asking.ask(chat(), usage()) is None, "it has not shown that it caches"
    assert asking.explained("r2").outcome == prefix_pb2.PREFIX_OUTCOME_UNKNOWN
    asking.ask(chat(), usage(1_920))
    loss = asking.ask(chat(), usage())
    assert loss is not None and loss.outcome == prefix_pb2.PREFIX_OUTCOME_EVICTED
    assert not loss.HasField("prefix_break")
    assert loss.lost_microusd == loss.lost_tokens * 27 // 10


async def test_a_pause_and_another_instance_are_no_fault_of_the_provider() -> None:
    asking = Asking()
    asking.ask(chat(), usage(1_024), instance="b")
    asking.ask(chat(), usage(1_920), instance="a")
    moved = asking.ask(chat(), usage(), instance="b")
    assert moved is not None and moved.outcome == prefix_pb2.PREFIX_OUTCOME_MOVED
    await asking.clock.advance(301.0)
    expired = asking.ask(chat(), usage(), instance="b")
    assert expired is not None and expired.outcome == prefix_pb2.PREFIX_OUTCOME_EXPIRED


def test_without_a_price_and_a_sign_of_a_cache_nothing_is_said_to_be_lost() -> None:
    asking = Asking()
    for second in range(2):
        assert asking.ask(chat(CLOCK.format(second)), usage(), model="plain") is None
    shown = asking.explained("r2")
    assert (shown.outcome, shown.lost_tokens) == (prefix_pb2.PREFIX_OUTCOME_UNKNOWN, 0)
    assert shown.prefix_break.kind == prefix_pb2.PREFIX_BREAK_KIND_CLOCK


def test_estimated_tokens_are_no_account() -> None:
    asking = Asking()
    asking.ask(chat(CLOCK.format(0)), usage())
    assert asking.ask(chat(CLOCK.format(1)), usage(estimated=True)) is None


def test_a_change_of_what_is_no_text_is_named_too() -> None:
    asking = Asking()
    first, second = chat(), chat()
    second.generate.reasoning.effort = "high"
    asking.ask(first, usage())
    loss = asking.ask(second, usage())
    assert loss is not None
    assert (loss.prefix_break.kind, loss.prefix_break.place) == (
        prefix_pb2.PREFIX_BREAK_KIND_PARAMETER,
        "reasoning",
    )


def with_image(data: bytes, *said: str) -> inference_pb2.Task:
    task = chat("You help.", "look")
    parts = task.generate.messages[1].parts
    parts.add(text="what is in stock")
    parts.add(image=inference_pb2.Image(data=data, media_type="image/png"))
    for text in said:
        task.generate.messages.add(role=inference_pb2.ROLE_USER, content=text)
    return task


@pytest.mark.parametrize(("data", "broken"), [(b"other", True), (b"png", False)])
def test_an_image_that_was_encoded_anew_breaks_a_prefix(data: bytes, broken: bool) -> None:
    asking = Asking()
    asking.ask(with_image(b"png"), usage())
    asking.ask(with_image(data, "and"), usage())
    shown = asking.explained("r2")
    assert shown.HasField("prefix_break") is broken
    assert (shown.prefix_break.kind == prefix_pb2.PREFIX_BREAK_KIND_IMAGE) is broken


def test_a_repair_that_is_on_and_did_not_help_is_not_advised_again() -> None:
    asking = Asking()
    on = Repairs(frozenset({"later_system_turn"}), ("stable_prefix",))
    asking.ask(chat(CLOCK.format(0)), usage(), repairs=on)
    asking.ask(chat(CLOCK.format(1)), usage(), repairs=on)
    shown = asking.explained("r2")
    assert (shown.repair_enabled, list(shown.repairs_applied)) == (True, ["stable_prefix"])
    assert "later_system_turn is on and could not mend it" in shown.text
    assert shown.text.endswith("Repaired before it was sent by stable_prefix.")


def test_the_prompts_of_a_run_or_session_are_shown_the_latest_first() -> None:
    asking = Asking()
    for number in range(MAX_PROMPTS + 3):
        asking.ask(chat(), usage(), affinity="session" if number % 2 else "")
    assert asking.of_conversation("run")[:3] == ["r103", "r102", "r101"]
    assert len(asking.of_conversation("run")) == MAX_PROMPTS
    assert len(asking.of_conversation("session")) == (MAX_PROMPTS + 3) // 2


def test_organisations_are_compared_with_themselves_and_shown_their_own() -> None:
    asking = Asking()
    asking.ask(chat(CLOCK.format(0)), usage())
    assert asking.ask(chat(CLOCK.format(1)), usage(), call=OTHER) is None
    shown = asking.explained("r2", organisation="other")
    assert shown.outcome == prefix_pb2.PREFIX_OUTCOME_FIRST
    assert asking.of_conversation("run", "other") == ["r2"]
    with pytest.raises(Fault) as refused:
        asking.explained("r1", organisation="other")
    assert (refused.value.reason, refused.value.field) == (Reason.NOT_FOUND, "request_id")
    with pytest.raises(Fault) as refused:
        asking.of_conversation("run", "third")
    assert (refused.value.reason, refused.value.field) == (Reason.NOT_FOUND, "conversation")


@pytest.mark.parametrize(
    ("asked", "at"),
    [({}, "request_id"), ({"request_id": "r1", "conversation": "run"}, "conversation")],
)
def test_one_thing_is_asked_about(asked: dict[str, str], at: str) -> None:
    with pytest.raises(Fault) as refused:
        explain_prefix(Asking().prefixes, prefixes_pb2.ExplainPrefixRequest(**asked), "acme")
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, at)


def test_no_more_accounts_are_kept_than_their_bound() -> None:
    asking = Asking()
    for _ in range(ACCOUNTS_KEPT + 2):
        asking.ask(chat(), usage())
    assert len(list(asking.prefixes.of_conversation("acme", "run"))) == ACCOUNTS_KEPT
    assert asking.prefixes.of_request("acme", "r2") is None
    assert asking.prefixes.of_request("acme", "r3") is not None


def test_every_kind_and_outcome_has_its_name_in_the_contract() -> None:
    kinds = [break_to_proto(PrefixBreak(kind, "turns[0]")).kind for kind in BreakKind]
    value = prefix_pb2.PrefixOutcome.Value
    outcomes = [value(outcome_name(outcome)) for outcome in PrefixOutcome]
    assert sorted([0, *kinds]) == sorted(prefix_pb2.PrefixBreakKind.values())
    assert sorted([0, *outcomes]) == sorted(prefix_pb2.PrefixOutcome.values())
