"""Fails early where no gateway is running."""

from __future__ import annotations

import pytest
from running_gateway import EDGE


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to run without a gateway."""
    if not EDGE:
        raise pytest.UsageError("no gateway is running; run `make conformance`")
