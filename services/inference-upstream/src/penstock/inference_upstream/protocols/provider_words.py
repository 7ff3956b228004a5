"""A provider's error as it came, for callers that speak its wire: which bodies may leave. Pure."""

from __future__ import annotations

import re

from penstock.api.common.v1 import common_pb2
from penstock.inference_upstream.protocols.cleaning import SECRETS
from penstock.inference_upstream.protocols.faults import CALLERS_FAULT
from penstock.rpc.errors import Fault
from penstock.service.purity import pure

MAX_ERROR_BODY_BYTES = 4_096
"""A status of gRPC, which carries it, has 8 KiB in all."""
HARMLESS = re.compile(
    r'"request_id"\s*:\s*"req_\w+"'  # Anthropic's number of this request
    r"|https://(?:[\w-]+\.)*(?:openai|anthropic|claude)\.com/[\w./#-]*"  # documentation
)
"""What looks like a secret and is none."""


@pure
def told_as_it_came(fault: Fault, status: int, body: bytes, sent: bytes) -> Fault:
    """The fault, with the provider's own words where the request is at fault and they tell nothing
    of the operator.

    Args:
        body: of the response, whole; of a stream of events, the piece that has the error.
        sent: the request's body: what it says is no secret to its caller.
    """
    if fault.reason not in CALLERS_FAULT or not _may_leave(body, sent):
        return fault
    said = common_pb2.ProviderError(status=status, body=body)
    return Fault(
        fault.reason,
        fault.message,
        field=fault.field,
        retry_after_s=fault.retry_after_s,
        provider_error=said,
    )


def _may_leave(body: bytes, sent: bytes) -> bool:
    if not body or len(body) > MAX_ERROR_BODY_BYTES:
        return False
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    found = SECRETS.finditer(HARMLESS.sub("", text))
    return all(each.group().encode() in sent for each in found)
