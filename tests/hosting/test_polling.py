"""The thread that gRPC waits in gives way to the event loop.

In a process of its own: a niceness cannot be taken back.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import asyncio, os
import grpc
from penstock.service.clock import SystemClock
from penstock.hosting.polling import poll_after_loop, pollers

async def main():
    server = grpc.aio.server()
    following = asyncio.create_task(poll_after_loop({nice}, SystemClock(), {few}))
    await asyncio.sleep(0)
    (poller,) = pollers()
    print(os.getpriority(os.PRIO_PROCESS, poller), os.getpriority(os.PRIO_PROCESS, 0),
          len(os.sched_getaffinity(poller)), len(os.sched_getaffinity(0)), following.done())
    following.cancel()
    await server.stop(None)

asyncio.run(main())
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux gives a thread a niceness of its own"
)


def asked(nice: int, few: int) -> list[int]:
    """Niceness of poller and loop, cores of poller and loop, and whether nothing is followed any
    more.
    """
    code = ASK.format(nice=nice, few=few)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [
        int(word == "True") if word in ("True", "False") else int(word)
        for word in run.stdout.split()
    ]


def test_the_poller_alone_gives_way_and_keeps_to_the_core_of_the_loop_where_cores_are_few() -> None:
    nice, own, cores, all_cores, over = asked(19, few=1024)
    assert nice == 19 and own < 19
    assert cores == 1 <= all_cores and not over


def test_where_cores_are_many_it_may_run_on_each() -> None:
    nice, own, cores, all_cores, over = asked(19, few=0)
    assert nice == 19 and own < 19
    assert cores == all_cores and over


def test_it_stays_as_it_is_where_that_is_asked() -> None:
    nice, own, cores, all_cores, over = asked(0, few=1024)
    assert nice == own and cores == all_cores and over
