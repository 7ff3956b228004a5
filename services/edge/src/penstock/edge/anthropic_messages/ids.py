"""Identifiers of tool calls as this protocol has them. Pure.

Anthropic's begin with `toolu_` and consist of letters, digits, `_` and `-`. Those of other
providers are put into this form and back, so that each provider sees its own again.
"""

from __future__ import annotations

import base64
import binascii
import re

from penstock.service.purity import pure

OWN = "toolu_"
FOREIGN = "toolu_x_"
"""Begins an identifier that another provider made; the rest is the identifier."""
ENCODED = "toolu_b_"
"""Begins one that has other characters; the rest is the identifier as URL-safe base64."""
PLAIN = re.compile(r"[A-Za-z0-9_-]+")


@pure
def outward_id(call_id: str) -> str:
    """The identifier as clients see it."""
    if PLAIN.fullmatch(call_id) is None:
        return ENCODED + base64.urlsafe_b64encode(call_id.encode()).decode().rstrip("=")
    is_own = call_id.startswith(OWN) and not call_id.startswith((FOREIGN, ENCODED))
    return call_id if is_own else FOREIGN + call_id


@pure
def inward_id(shown: str) -> str:
    """The identifier as its provider made it."""
    if shown.startswith(FOREIGN):
        return shown.removeprefix(FOREIGN)
    if not shown.startswith(ENCODED):
        return shown
    text = shown.removeprefix(ENCODED)
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return shown
