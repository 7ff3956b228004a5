"""The log of a stack: a line an event, and no chatter of what others wrote."""

from __future__ import annotations

import io

import pytest
from penstock.stack.log import LogStream
from rich.console import Console

STORE_STARTS = "17:M 28 Nov 2026 18:46:10.494 # WARNING Memory overcommit must be enabled! Without"
STORE_ENDS = "17:M 28 Nov 2026 18:47:12.749 # Valkey is now ready to exit, bye bye..."
STORE_STOPS = "17:signal-handler (1795891632) Received SIGTERM scheduling shutdown..."
DISK_FULL = "17:M 28 Nov 2026 18:46:11.001 # Error writing to the AOF file: No space left on device"


def lines_of(*written: tuple[str, str]) -> list[str]:
    """The log's lines after these lines of processes."""
    printed = io.StringIO()
    log = LogStream(Console(file=printed, width=200))
    for name, line in written:
        log(name, line)
    return printed.getvalue().splitlines()


@pytest.mark.parametrize("line", [STORE_STARTS, STORE_ENDS, STORE_STOPS])
def test_a_store_that_starts_and_ends_as_it_should_writes_nothing(line: str) -> None:
    assert lines_of(("redis-ledger", line)) == []


def test_a_store_in_trouble_is_heard() -> None:
    (line,) = lines_of(("redis-cache", DISK_FULL))
    assert line.endswith(f"redis-cache │ {DISK_FULL}")


def test_each_line_follows_the_name_of_its_process_and_is_never_broken() -> None:
    long = "x" * 500
    assert lines_of(("router", long), ("cache", "served")) == [
        f"{'router':>22} │ {long}",
        f"{'cache':>22} │ served",
    ]


def test_what_a_service_says_of_a_store_is_kept() -> None:
    assert len(lines_of(("limiter", "the store is now ready to exit"))) == 1
