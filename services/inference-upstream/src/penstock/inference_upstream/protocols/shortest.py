"""Numbers as short as they can be written."""

from __future__ import annotations

import struct

from penstock.service.purity import pure

FLOAT = struct.Struct("f")
MAX_DIGITS = 9
"""Decimal digits that tell every IEEE 754 single precision number apart."""


@pure
def shortest(value: float) -> float:
    """The number with the fewest decimal digits that is the same in single precision.

    A message's `float` field gives back 0.7 as 0.699999988079071, which providers would see and
    caches would not match.
    """
    for digits in range(1, MAX_DIGITS):
        candidate = float(f"{value:.{digits}g}")
        if FLOAT.unpack(FLOAT.pack(candidate))[0] == value:
            return candidate
    return float(f"{value:.{MAX_DIGITS}g}")
