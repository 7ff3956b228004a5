"""What a caller is told whom a limit refuses: the rule, and what would help."""

from __future__ import annotations

from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.rpc.errors import Fault, denied, exhausted, failed_precondition, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

EXHAUSTED = {
    pb.VERDICT_RATE_LIMITED: (Reason.RATE_LIMITED, "is used up for now"),
    pb.VERDICT_SHED: (Reason.SHED, "is kept for more urgent calls"),
    pb.VERDICT_BUDGET_EXHAUSTED: (Reason.BUDGET_EXHAUSTED, "is spent for this window"),
}


@pure
def refusal(decision: pb.Decision) -> Fault:
    """The fault of a decision that refuses."""
    rule = f"limit {decision.rule}" if decision.rule else "a limit"
    hints = _hints(decision)
    wait_s = decision.retry_after_ms / 1e3
    match decision.verdict:
        case pb.VERDICT_UNPRICED:
            why = (
                f"{rule} counts money and the model has no price: ask for one that ListModels "
                "shows, or add it to `prices` in the file"
            )
            return failed_precondition("options.model", why + hints, Reason.NO_PRICE)
        case pb.VERDICT_NEVER:
            why = f"{rule}: this call is larger than the limit; trying again does not help"
            return failed_precondition("", why + hints, Reason.NEVER_FITS)
        case pb.VERDICT_DRAINED:
            return denied("the organisation is being drained by its operator", Reason.DRAINED)
        case pb.VERDICT_SUPERSEDED:
            return Fault(Reason.SUPERSEDED, "a later try of the same job has taken its place")
        case pb.VERDICT_STORE_UNAVAILABLE:
            why = f"{rule}: the store of the limits does not answer"
            return unavailable(why, retry_after_s=wait_s, reason=Reason.LIMITS_UNAVAILABLE)
    # A verdict that this router does not know yet is a refusal all the same.
    reason, what = EXHAUSTED.get(decision.verdict, (Reason.REFUSED, "refuses the call"))
    return exhausted(f"{rule} {what}{hints}", reason=reason, retry_after_s=wait_s)


def _hints(decision: pb.Decision) -> str:
    """What would pass instead."""
    hints = []
    if decision.max_tokens_hint:
        hints.append(f"max_tokens of {decision.max_tokens_hint} would pass")
    if decision.cheaper_model_hint:
        hints.append(f"model {decision.cheaper_model_hint} would pass")
    return f"; {', '.join(hints)}" if hints else ""
