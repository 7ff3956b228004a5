"""What a long benchmark says while it runs: a line for each part, on standard error, so that the
last line of output stays the figures.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def say(text: str) -> None:
    """Say what begins now."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)
