"""For receivers of callbacks: whether one comes from Penstock, and is no replay.

The secret is the organisation's own; operators make it of `PENSTOCK_CALLBACK_SECRET`:
`printf %s ORGANISATION | openssl dgst -sha256 -hmac "$PENSTOCK_CALLBACK_SECRET"`.
"""

from __future__ import annotations

import hashlib
import hmac
import re

SIGNATURE = re.compile(r"t=(?P<at>[0-9]{1,12}),v1=(?P<digest>[0-9a-f]{64})")
TOLERANCE_S = 300.0


class BadCallback(ValueError):
    """A request that is not to be believed; says why."""


def verify_callback(
    secret: str,
    signature: str,
    body: bytes,
    now_unix_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Check a callback before its body is read. Within the tolerance a callback may come again,
    since it is sent until it is taken: whoever acts on one remembers the job's id so long.

    Args:
        signature: the header `penstock-signature`.
        now_unix_s: the receiver's clock.
        tolerance_s: how old a callback may be, and how far clocks may differ.

    Raises:
        BadCallback: the signature is another's, or was made too long ago.
    """
    parts = SIGNATURE.fullmatch(signature)
    if parts is None:
        raise BadCallback("the header penstock-signature is missing or is not one")
    signed = f"{parts['at']}.".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, parts["digest"]):
        raise BadCallback("the signature is not that of the body under this secret")
    if abs(now_unix_s - int(parts["at"])) > tolerance_s:
        raise BadCallback(f"the signature was made more than {tolerance_s:g} s ago or ahead")
