"""A store that answers but cannot serve is a lost store, not a defect of ours: the rules'
`store_loss` decides. Each error goes through redis-py's own parser, which makes classes of some.
"""

from __future__ import annotations

from typing import Any

import pytest
from penstock.limiter.store.connection import NO_COUNTERS, StoreConnection, StoreTimings
from penstock.limiter.store.errors import StoreLost
from penstock.testkit.clock import FakeClock
from redis._parsers.base import BaseParser

pytestmark = pytest.mark.standard_case(30)

LINES = [
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "CLUSTERDOWN Hash slot not served",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to.",
    "NOREPLICAS Not enough good replicas to write.",
    "BUSY Redis is busy running a script.",
]


class Store:
    """Answers every script call with one error, as redis-py hands it on."""

    def __init__(self, line: str) -> None:
        self._line = line

    async def script_load(self, script: str) -> str:
        return "sha"

    def pipeline(self, transaction: bool) -> Store:
        return self

    def execute_command(self, *arguments: object) -> None:
        return None

    async def execute(self, raise_on_error: bool) -> list[object]:
        return [BaseParser.parse_error(self._line)]

    async def set(self, *arguments: object, px: int) -> None:
        raise ConnectionError

    async def aclose(self) -> None:
        return None


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("inside", [False, True])
async def test_a_store_that_cannot_serve_is_lost(line: str, inside: bool) -> None:
    told = f"ERR Error running script (call to f_1): @user_script:1: -{line}" if inside else line
    store: Any = Store(told)
    connection = StoreConnection(store, FakeClock(0.0), StoreTimings(), lambda: 0, 1)
    with pytest.raises(StoreLost):
        await connection.run(NO_COUNTERS)
    assert connection.is_lost
    await connection.close()
