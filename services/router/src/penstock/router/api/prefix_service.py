"""`ExplainPrefix`: accounts of prompts' prefixes as messages, and in words."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.api.router.v1 import prefixes_pb2 as pb
from penstock.prompts.prefix_cost import PrefixOutcome
from penstock.router.prompts.prefixes import (
    LOSSES,
    PrefixAccount,
    Prefixes,
    break_to_proto,
    outcome_name,
)
from penstock.rpc.errors import invalid, not_found

MAX_PROMPTS = 100
"""The latest prompts of a conversation that are shown."""


def explain_prefix(
    prefixes: Prefixes, request: pb.ExplainPrefixRequest, organisation: str
) -> pb.ExplainPrefixResponse:
    """What is known of the prompts that an organisation asks about.

    Raises:
        Fault: INVALID_ARGUMENT unless exactly one field is set; NOT_FOUND where nothing is known.
    """
    if request.request_id and request.conversation:
        raise invalid("conversation", "is set beside request_id; set one of the two")
    if not (request.request_id or request.conversation):
        raise invalid("request_id", "is empty, and conversation too; set one of the two")
    if request.request_id:
        found = prefixes.of_request(organisation, request.request_id)
        if found is None:
            message = (
                f"no prompt of {request.request_id!r} is among the latest that this router has sent"
            )
            raise not_found("request_id", message)
        return pb.ExplainPrefixResponse(prompts=[_to_proto(found)])
    latest = list(prefixes.of_conversation(organisation, request.conversation))[-MAX_PROMPTS:]
    if not latest:
        message = (
            f"no prompt of {request.conversation!r} is among the latest that this router has sent"
        )
        raise not_found("conversation", message)
    return pb.ExplainPrefixResponse(prompts=[_to_proto(one) for one in reversed(latest)])


def _to_proto(account: PrefixAccount) -> pb.PromptPrefix:
    reported, read, broken, since = account.reported, account.read, account.broken, account.since
    shown = pb.PromptPrefix(
        request_id=reported.id,
        run_id=account.run_id,
        model=account.model,
        instance_id=reported.server,
        sent_unix_ms=round(account.sent_unix_s * 1e3),
        outcome=outcome_name(read.outcome),
        breaks_in_row=account.times,
        previous_request_id=account.previous_id,
        input_tokens=reported.input_tokens,
        cached_tokens=reported.cached_tokens,
        readable_tokens=read.readable_tokens,
        lost_tokens=_lost_tokens(account),
        lost_microusd=account.lost_microusd,
        repairs_applied=account.repairs.applied,
        text=" ".join(_sentences(account)),
    )
    if broken is not None:
        shown.prefix_break.CopyFrom(break_to_proto(broken))
        shown.repair = broken.repair
        shown.repair_enabled = broken.repair in account.repairs.enabled
    if since is not None:
        shown.since_request_id = since.id
        ago_s = reported.at_s - since.at_s
        shown.since_unix_ms = round((account.sent_unix_s - ago_s) * 1e3)
    return shown


def _lost_tokens(account: PrefixAccount) -> int:
    return account.read.lost_tokens if account.read.outcome in LOSSES else 0


def _sentences(account: PrefixAccount) -> Iterator[str]:
    """The account in words."""
    yield _outcome(account)
    if account.broken is not None:
        yield f"The prompt departs from the one before it at {account.broken}{_row(account.times)}."
        yield from _repair(account)
    if account.repairs.applied:
        yield f"Repaired before it was sent by {', '.join(account.repairs.applied)}."


def _outcome(account: PrefixAccount) -> str:
    read, cached = account.read, account.reported.cached_tokens
    match read.outcome:
        case PrefixOutcome.FIRST:
            return "No earlier prompt of this conversation is known."
        case PrefixOutcome.TOO_SHORT | PrefixOutcome.UNKNOWN:
            return f"Nothing was lost that is known of: {read.outcome.value}."
        case PrefixOutcome.READ:
            return f"{cached:,} tokens were read from the provider's cache, all that could be."
        case (
            PrefixOutcome.BROKEN
            | PrefixOutcome.MOVED
            | PrefixOutcome.EXPIRED
            | PrefixOutcome.EVICTED
        ):
            lost_microusd = account.lost_microusd
            cost = f", which cost ${lost_microusd / 1e6:,.6f}" if lost_microusd else ""
            return (
                f"{read.lost_tokens:,} of {read.readable_tokens:,} tokens were not read from the "
                f"provider's cache{cost}: {read.outcome.value}."
            )


def _row(times: int) -> str:
    if times < 2:
        return ""
    before = "the prompt" if times == 2 else f"the {times - 1} prompts"
    return f", as did {before} before it"


def _repair(account: PrefixAccount) -> Iterator[str]:
    repair = account.broken.repair if account.broken is not None else ""
    if repair in account.repairs.enabled:
        yield f"{repair} is on and could not mend it: what changed stands where it has to stay."
    elif repair:
        yield f"{repair} in a rule of prompts may mend it without loss."
