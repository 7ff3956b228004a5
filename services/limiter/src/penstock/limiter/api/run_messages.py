"""Messages of started agent runs, and what is wrong with a request about them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from penstock.api.common.v1 import run_pb2
from penstock.api.limiter.v1 import runs_pb2 as pb
from penstock.limiter.counters import Amounts, ThreeAmounts
from penstock.limiter.run_costs import UNSETTLED, CostLabel, CostPart, CostRow, spent_of
from penstock.limiter.run_trees import (
    DIMENSIONS,
    MAX_RUN_AMOUNT,
    UNLIMITED,
    RunBudget,
    RunChange,
    RunHold,
    RunNode,
    RunReply,
    RunVerdict,
)
from penstock.limiter.store.run_store import RunKey
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault, exhausted, invalid, not_found
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

MAX_ID_BYTES, MAX_NAME_BYTES, MAX_REASON_BYTES = 128, 128, 512
MAX_COSTS, PICOUSD = 16, 10**6
"""Rows of one settlement; millionths of a micro-dollar in one."""
MAX_TIME_MS = 10**12
HELD_RETRY_S = 1.0
"""When a call is asked to try again that others in flight stand in the way of."""
STATES = {
    "running": run_pb2.RUN_STATE_RUNNING,
    "paused": run_pb2.RUN_STATE_PAUSED,
    "cancelled": run_pb2.RUN_STATE_CANCELLED,
    "ended": run_pb2.RUN_STATE_ENDED,
}
ACTIONS = {
    pb.RUN_ACTION_RAISE: "raise",
    pb.RUN_ACTION_PAUSE: "pause",
    pb.RUN_ACTION_CANCEL: "cancelled",
    pb.RUN_ACTION_END: "ended",
}
PARTS = ("calls", "tokens", "microusd")
COST_KINDS = frozenset(run_pb2.RunCostKind.values()) - {run_pb2.RUN_COST_KIND_UNSPECIFIED}
TOO_MANY = (
    "",
    "the organisation has as many runs as it may have",
    "the run has as many runs below it as it may have",
    "the run lies as deep as one may",
    "the run has as many calls in flight as it may have",
)


def run_key(call: Call, run_id: str) -> RunKey:
    """A run of the caller's organisation and key. Raises INVALID_ARGUMENT."""
    who = call.principal
    if not who.organisation:
        raise invalid("context.principal.organisation", "must not be empty: it names who pays")
    if not 0 < len(run_id.encode()) <= MAX_ID_BYTES:
        raise invalid("run_id", f"must have 1 to {MAX_ID_BYTES} bytes")
    return RunKey(who.organisation, quote(who.key_id, safe=""), run_id)


def checked_budget(request: pb.OpenRunRequest) -> RunBudget:
    """What a run is opened with. Raises INVALID_ARGUMENT."""
    limits = _limits(request.limits)
    reserve = checked_run_amount("reserve", request.reserve)
    for part, limit, kept in zip(PARTS, limits, reserve, strict=True):
        if kept > max(0, limit):
            raise invalid(f"reserve.{part}", "must be at most the limit, of which it is a part")
    name = _bounded("name", request.name, MAX_NAME_BYTES)
    return RunBudget(name, limits, reserve, request.limits.time_ms)


def checked_change(request: pb.ChangeRunRequest, by: str) -> RunChange:
    """What is to become of a run. Raises INVALID_ARGUMENT."""
    action = ACTIONS.get(request.action)
    if action is None:
        raise invalid("action", f"{request.action} is no action")
    reason = _bounded("reason", request.reason, MAX_REASON_BYTES)
    return RunChange(action, by, reason, _limits(request.limits), request.limits.time_ms)


def checked_run_amount(field: str, given: run_pb2.RunAmount) -> ThreeAmounts:
    """The three amounts of a field. Raises INVALID_ARGUMENT for one that is out of bounds."""
    for part in PARTS:
        if not 0 <= getattr(given, part) <= MAX_RUN_AMOUNT:
            raise invalid(f"{field}.{part}", f"must lie between 0 and {MAX_RUN_AMOUNT}")
    return given.calls, given.tokens, given.microusd


def checked_hold(request: pb.HoldRunRequest, hold_ms: int) -> RunHold:
    """What a call asks of its run. Raises INVALID_ARGUMENT."""
    step, model = (
        _bounded(name, getattr(request, name), MAX_NAME_BYTES) for name in ("step", "model")
    )
    label = UNSETTLED._replace(model=model, step=step)
    amounts = checked_run_amount("amount", request.amount)
    flags = request.is_final, request.is_unpriced
    return RunHold(request.hold_id, amounts, hold_ms, *flags, label)


def checked_costs(costs: Sequence[run_pb2.RunCost]) -> list[CostPart]:
    """What a hold has spent, by what it was for. Raises INVALID_ARGUMENT."""
    if len(costs) > MAX_COSTS:
        raise invalid("costs", f"has {len(costs)} rows; at most {MAX_COSTS} are allowed")
    parts = [_checked_cost(f"costs[{at}]", cost) for at, cost in enumerate(costs)]
    if max(spent_of(parts)) > MAX_RUN_AMOUNT:
        raise invalid("costs", f"come to more than {MAX_RUN_AMOUNT}")
    return parts


def _checked_cost(at: str, cost: run_pb2.RunCost) -> CostPart:
    if cost.kind not in COST_KINDS:
        raise invalid(f"{at}.kind", f"{cost.kind} is no kind of cost")
    if not 0 <= cost.rounding_picousd < PICOUSD:
        raise invalid(f"{at}.rounding_picousd", f"must lie between 0 and {PICOUSD - 1}")
    step, model = (
        _bounded(f"{at}.{name}", getattr(cost, name), MAX_NAME_BYTES) for name in ("step", "model")
    )
    amounts = checked_run_amount(f"{at}.amount", cost.amount)
    label = CostLabel(cost.kind, model, step, cost.estimated)
    return CostPart(label, amounts, cost.rounding_picousd)


@pure
def cost_message(row: CostRow) -> run_pb2.RunCost:
    """A row of what a run has cost, as a message."""
    label, amounts, rounding_picousd = row.part
    return run_pb2.RunCost(
        run_id=row.run_id,
        step=label.step,
        kind=run_pb2.RunCostKind.Name(label.kind),
        model=label.model,
        estimated=label.is_estimated,
        amount=_amount(amounts),
        rounding_picousd=rounding_picousd,
    )


@pure
def run_fault(reply: RunReply, run_id: str, asked: Amounts = (0, 0, 0)) -> Fault | None:
    """The refusal of an operation; None where it was done, or the id is not of a started run."""
    match reply.verdict:
        case RunVerdict.OK | RunVerdict.SETTLED | RunVerdict.UNKNOWN:
            return None
        case RunVerdict.FOREIGN | RunVerdict.MISSING:
            return unknown_run(run_id)
        case RunVerdict.TOO_MANY:
            return exhausted(f"{TOO_MANY[reply.dimension]}: end those that are done")
        case RunVerdict.NEEDS_SHARE:
            field = f"limits.{PARTS[reply.dimension - 1]}"
            return invalid(field, "the parent has this limit: name the child's share of it")
    refusing, node = reply.runs[0]
    run = run_message(refusing, node)
    match reply.verdict:
        case RunVerdict.NO_PRICE:
            message = (
                f"the run {refusing} limits money and the model has no price: ask for one that "
                "ListModels shows, or add it to `prices` in the file"
            )
            return Fault(Reason.NO_PRICE, message, run=run)
        case RunVerdict.PAUSED:
            message = f"the run {refusing} is paused by {node.by or 'its caller'}: RaiseRun resumes"
            return Fault(Reason.RUN_PAUSED, message, run=run)
        case RunVerdict.CANCELLED:
            return Fault(Reason.RUN_CANCELLED, f"the run {refusing} was cancelled", run=run)
        case RunVerdict.ENDED:
            return Fault(Reason.RUN_ENDED, f"the run {refusing} has ended", run=run)
        case RunVerdict.IN_FLIGHT:
            message = (
                f"{_shortage(reply, asked)} while its calls in flight hold the rest; try again"
            )
            return Fault(Reason.RUN_BUDGET_HELD, message, retry_after_s=HELD_RETRY_S, run=run)
        case RunVerdict.OVER_LIMIT:
            message = f"{_shortage(reply, asked)}; RaiseRun with a higher limit resumes it"
            return Fault(Reason.RUN_BUDGET_EXHAUSTED, message, run=run)
    raise ValueError(f"unknown verdict {reply.verdict}")


@pure
def unknown_run(run_id: str) -> Fault:
    """There is no such run for this caller."""
    return not_found("run_id", f"no run {run_id} was started with this key")


@pure
def run_message(run_id: str, node: RunNode) -> run_pb2.Run:
    """A run as a message."""
    return run_pb2.Run(
        id=run_id,
        parent_id=node.parent,
        name=node.name,
        state=STATES[node.state],
        changed_by=node.by,
        reason=node.why,
        paused_at=node.source,
        wanted=_amount(node.wanted) if any(node.wanted) else None,
        limits=_limits_message(node),
        reserve=_amount(node.reserve),
        spent=_amount(node.spent),
        held=_amount(node.held),
        shared=_amount(node.shared),
        started_unix_ms=node.started_ms,
        ends_unix_ms=node.ends_ms,
    )


def _limits(given: run_pb2.RunLimits) -> ThreeAmounts:
    limits = [getattr(given, part) if given.HasField(part) else UNLIMITED for part in PARTS]
    for part, limit in zip(PARTS, limits, strict=True):
        if not UNLIMITED <= limit <= MAX_RUN_AMOUNT or (given.HasField(part) and limit < 0):
            raise invalid(f"limits.{part}", f"must lie between 0 and {MAX_RUN_AMOUNT}")
    if not 0 <= given.time_ms <= MAX_TIME_MS:
        raise invalid("limits.time_ms", f"must lie between 0 and {MAX_TIME_MS}")
    return limits[0], limits[1], limits[2]


def _limits_message(node: RunNode) -> run_pb2.RunLimits:
    given = {part: limit for part, limit in zip(PARTS, node.limits, strict=True) if limit >= 0}
    time_ms = node.ends_ms - node.started_ms if node.ends_ms else 0
    return run_pb2.RunLimits(**given, time_ms=time_ms)


def _amount(amounts: Amounts) -> run_pb2.RunAmount:
    return run_pb2.RunAmount(calls=amounts[0], tokens=amounts[1], microusd=amounts[2])


def _bounded(field: str, text: str, max_bytes: int) -> str:
    if len(text.encode()) > max_bytes:
        raise invalid(field, f"must have at most {max_bytes} bytes")
    return text


def _shortage(reply: RunReply, asked: Amounts) -> str:
    """What a run lacks, in words."""
    run_id, node = reply.runs[0]
    if reply.dimension == len(PARTS) + 1:
        return f"the time of run {run_id} is up"
    part = reply.dimension - 1
    left = node.limits[part] - node.used[part] - node.reserve[part]
    unit = DIMENSIONS[reply.dimension]
    return (
        f"the run {run_id} has {max(0, left)} of {node.limits[part]} {unit} left, and this takes "
        f"{asked[part]}"
    )
