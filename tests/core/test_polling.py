"""The thread that gRPC waits in gives way to the event loop. In a process of its own: a niceness cannot be taken back."""

from __future__ import annotations

import subprocess
import sys

import pytest
from penstock.core.polling import poll_after_others

ASK = """
import asyncio, os, threading
import grpc
from penstock.core.polling import poll_after_others

async def main():
    server = grpc.aio.server()
    changed = poll_after_others({nice})
    ids = [thread.native_id for thread in threading.enumerate() if thread is not threading.main_thread()]
    print(changed, os.getpriority(os.PRIO_PROCESS, 0), *[os.getpriority(os.PRIO_PROCESS, each) for each in ids])
    await server.stop(None)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a niceness of its own")
def test_the_poller_alone_is_nice() -> None:
    run = subprocess.run([sys.executable, "-c", ASK.format(nice=19)], capture_output=True, text=True, check=True)
    changed, own, *others = (int(number) for number in run.stdout.split())
    assert changed == 1 and own < 19 and others.count(19) == 1


def test_it_stays_as_it_is_where_that_is_asked() -> None:
    assert poll_after_others(0) == 0
