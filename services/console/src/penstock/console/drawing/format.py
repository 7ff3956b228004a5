"""Numbers, names and addresses as text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlencode

Query = Mapping[str, str]
"""What stands behind `?` in a page's address, which holds the page's whole state."""


def dollars(microusd: int) -> str:
    """Micro-dollars as dollars; small amounts with six digits."""
    digits = 6 if abs(microusd) < 10_000_000 else 2
    return f"${microusd / 1e6:,.{digits}f}"


def clock_time(unix_ms: int) -> str:
    """A moment as hours, minutes and seconds of local time."""
    return time.strftime("%H:%M:%S", time.localtime(unix_ms / 1e3))


def link(path: str, query: Query, /, **parameters: str) -> str:
    """The address of a page with these parameters, in the theme of the present one."""
    kept = {key: value for key, value in query.items() if key == "theme"}
    given = {key: value for key, value in parameters.items() if value}
    together = {**kept, **given}
    return f"{path}?{urlencode(together)}" if together else path
