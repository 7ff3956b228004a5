"""What a provider's errors mean: its HTTP status and the error in its body become a Fault.

Pure: statuses, headers and bodies in, faults out. This is the one place where a provider's words
decide anything, since many providers give the same code to errors that differ. What of them reaches
the caller is cleaned first, and only where the request itself is at fault: an error of the
provider's own may speak of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.inference_upstream.protocols.cleaning import clean_text, clean_word
from penstock.inference_upstream.protocols.error_details import ErrorDetails
from penstock.inference_upstream.protocols.error_table import NO_STATUS, reason_for
from penstock.inference_upstream.protocols.retry_after import retry_delay_s
from penstock.rpc.errors import Fault, unavailable
from penstock.rpc.reasons import Reason
from penstock.service.purity import pure

DEFAULT_WAIT_S = {Reason.UPSTREAM_RATE_LIMITED: 1.0, Reason.UPSTREAM_OVERLOADED: 0.5}
"""Seconds to wait where the provider does not say."""
PASSING = (*DEFAULT_WAIT_S, Reason.UPSTREAM_ERROR, Reason.UPSTREAM_BALANCE)
"""Reasons that waiting may mend."""
CALLERS_FAULT = (Reason.UPSTREAM_REFUSED, Reason.UPSTREAM_TOO_LONG, Reason.UPSTREAM_FILTERED)
"""Reasons for which the caller hears the provider's own words."""
ADVICE: Mapping[Reason, str] = {
    Reason.UPSTREAM_REFUSED: "the upstream refuses the request",
    Reason.UPSTREAM_TOO_LONG: "the request is too long for the upstream's model; shorten it or use "
    "a model with a larger context",
    Reason.UPSTREAM_FILTERED: "the upstream's content filter refuses the request",
    Reason.UPSTREAM_CREDENTIALS: "the upstream refuses the key that is configured for it",
    Reason.UPSTREAM_BALANCE: "the upstream's account has no money or quota left",
    Reason.UPSTREAM_NO_MODEL: "the upstream does not know the model, or its key may not use it",
    Reason.UPSTREAM_RATE_LIMITED: "the upstream limits the rate of requests; retry later or use "
    "another one",
    Reason.UPSTREAM_OVERLOADED: "the upstream has too much to do; retry later or use another one",
    Reason.UPSTREAM_ERROR: "the upstream has an error of its own; retry or use another one",
}
"""What the caller is told of each reason, before the provider's own code."""
FIELDS = {
    "messages": "messages",
    "input": "messages",
    "tools": "tools",
    "functions": "tools",
    "tool_choice": "tool_choice",
    "response_format": "response_format",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "stop_sequences": "stop",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning.effort",
    "thinking": "reasoning",
    "top_logprobs": "top_logprobs",
}
"""Fields of the task by the names that providers give to parameters."""


def status_fault(status: int, headers: Mapping[str, str], body: bytes, now_unix_s: float) -> Fault:
    """What a response with an HTTP status other than 200 means.

    Args:
        headers: by their names in lower case.
        body: as far as it was read; it need not be JSON.
        now_unix_s: for waits that are given as a date.
    """
    details = ErrorDetails.of_body(body)
    wait_s = retry_delay_s(headers, details, now_unix_s)
    return _fault(status, details, wait_s)


def error_fault(error: Any) -> Fault:
    """What an error inside an answer means, after a status of 200."""
    details = ErrorDetails.of_value(error)
    return _fault(details.status or NO_STATUS, details, retry_delay_s({}, details, 0.0))


def _fault(status: int, details: ErrorDetails, wait_s: float) -> Fault:
    reason = reason_for(status, details)
    wait_s = (wait_s or DEFAULT_WAIT_S.get(reason, 0.0)) if reason in PASSING else 0.0
    message = _message(reason, status, details)
    return Fault(reason, message, field=_field(reason, details), retry_after_s=wait_s)


@pure
def _message(reason: Reason, status: int, details: ErrorDetails) -> str:
    """What the caller is told: the meaning, the provider's own code, and its words if they are
    about this request.
    """
    words = [str(status)] if status else []
    words += [word for word in (clean_word(details.code), clean_word(details.type)) if word]
    told = ADVICE[reason]
    if words:
        told += f" ({' '.join(dict.fromkeys(words))})"
    said = clean_text(details.message) if reason in CALLERS_FAULT else ""
    return f"{told}: {said}" if said else told


@pure
def _field(reason: Reason, details: ErrorDetails) -> str:
    """The field that the caller must mend; empty where the request is not at fault."""
    if reason is Reason.UPSTREAM_NO_MODEL:
        return "model"
    if reason not in CALLERS_FAULT:
        return ""
    if reason is not Reason.UPSTREAM_REFUSED:
        return "task.messages"
    name = FIELDS.get(details.param.partition(".")[0].partition("[")[0], "")
    return f"task.generate.{name}" if name else "task"


def malformed(what: str) -> Fault:
    """The fault of an upstream whose answer is not the protocol."""
    return unavailable(
        f"the upstream's answer is malformed: {what}", reason=Reason.UPSTREAM_MALFORMED
    )
