"""How a client begins and ends: closed, shared by threads, forked, interrupted, left open.

Scripts stand for users' programs; each runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from penstock.client import NotOpen, Penstock, PenstockSync
from penstock.client.background import THREAD_NAME
from penstock.testkit.router import HANG, KEY, ScriptedRouter

WAIT_S = 20


async def start_script(body: str, address: str, **env: str) -> asyncio.subprocess.Process:
    """Start a program in which `opened()` gives a sync client; warnings are errors."""
    head = f"from penstock.client import *\nopened = lambda: PenstockSync({address!r}, {KEY!r})\n"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        head + body,
        env={**os.environ, **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run_script(body: str, address: str, **env: str) -> tuple[str, str]:
    """Standard output and standard error of a program, which must end with status 0."""
    process = await start_script(body, address, **env)
    output, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode == 0, errors.decode()
    return output.decode().strip(), errors.decode()


async def in_thread(use: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(use), WAIT_S)


@pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])
async def test_closing_ends_calls_in_flight_and_refuses_later_ones(
    address: str, router: ScriptedRouter, plain: bool
) -> None:
    client = Penstock(address, KEY, plain=plain)
    call = asyncio.create_task(client.embed([HANG]))
    await asyncio.wait_for(router.hanging.wait(), WAIT_S)
    await client.close()
    await client.close()
    with pytest.raises(NotOpen, match="closed while the call was in flight"):
        await call
    with pytest.raises(NotOpen, match="the client was closed"):
        await client.embed(["x"])


async def test_a_closed_sync_client_refuses_calls_and_others_go_on(address: str) -> None:
    def use() -> None:
        client = PenstockSync(address, KEY)
        other = PenstockSync(address, KEY)
        assert client.embed(["four"]).embeddings[0].values[0] == 4.0
        client.close()
        client.close()
        for call in (
            lambda: client.embed(["x"]),
            client.list_models,
            lambda: list(client.generate_stream("x")),
        ):
            with pytest.raises(NotOpen):
                call()
        assert other.embed(["four"]).embeddings
        other.close()
        with pytest.raises(NotOpen):
            client.embed(["x"])

    await in_thread(use)


async def test_sync_clients_share_one_thread_which_ends_with_the_last(address: str) -> None:
    def background_threads() -> int:
        return sum(thread.name == THREAD_NAME for thread in threading.enumerate())

    def use() -> None:
        with PenstockSync(address, KEY) as one, PenstockSync(address, KEY) as two:
            assert one.embed(["x"]).embeddings
            assert two.embed(["x"]).embeddings
            assert background_threads() == 1
        assert background_threads() == 0

    await in_thread(use)


async def test_a_client_belongs_to_the_loop_of_its_first_call(address: str) -> None:
    def use() -> None:
        client = Penstock(address, KEY)
        assert asyncio.run(client.embed(["x"])).embeddings
        with pytest.raises(NotOpen, match="another event loop"):
            asyncio.run(client.embed(["x"]))

    await in_thread(use)


async def test_an_abandoned_sync_stream_is_cancelled_at_the_router(
    address: str, router: ScriptedRouter
) -> None:
    def use() -> None:
        with PenstockSync(address, KEY) as client:
            for part in client.generate_stream(HANG):
                assert part.chunk.delta == "a"
                break

    await in_thread(use)
    await asyncio.wait_for(router.cancelled.wait(), WAIT_S)


PROGRAMS = {
    "closed": "with opened() as client: print(len(client.embed(['x']).embeddings))",
    "left open": "client = opened(); print(len(client.embed(['x']).embeddings))",
    "stream left open": (
        "client = opened(); client.embed(['x'])\n"
        "parts = client.generate_stream('x'); next(parts); print(1)"
    ),
    "inside a running loop": (
        "import asyncio\n"
        "async def cell(): print(len(opened().embed(['x']).embeddings))\n"
        "asyncio.run(cell())"
    ),
}


@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS)
async def test_a_program_ends_without_complaints(address: str, body: str) -> None:
    assert await run_script(body, address) == ("1", "")


async def test_proxy_variables_of_the_environment_are_ignored(address: str) -> None:
    proxy = "http://127.0.0.1:9"
    output, _ = await run_script(
        "with opened() as client: print(len(client.embed(['x']).embeddings))",
        address,
        http_proxy=proxy,
        https_proxy=proxy,
        grpc_proxy=proxy,
        no_proxy="",
        no_grpc_proxy="",
    )
    assert output == "1"


@pytest.mark.parametrize(
    "client", ["client", "opened()"], ids=["the parent's client", "a client of its own"]
)
async def test_a_client_in_a_forked_child_is_refused_with_advice(address: str, client: str) -> None:
    output, _ = await run_script(
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "client = opened(); client.embed(['x'])\n"
        "if os.fork() == 0:\n"
        f"    try: {client}.embed(['x'])\n"
        "    except NotOpen as error: print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); print(len(client.embed(['x']).embeddings))",
        address,
        # Otherwise gRPC's own fork handlers may abort the child before the client is asked.
        GRPC_ENABLE_FORK_SUPPORT="0",
    )
    from_child, from_parent = output.split("\n")
    assert "start processes by spawn" in from_child
    assert from_parent == "1"


async def test_a_fork_before_the_first_client_is_allowed(address: str) -> None:
    output, _ = await run_script(
        "import os, sys\n"
        "child = os.fork()\n"
        "with opened() as client: client.embed(['x'])\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "print('child', flush=True)",
        address,
    )
    assert output == "child"


async def test_an_interrupt_cancels_the_call_and_the_client_still_works(
    address: str, router: ScriptedRouter
) -> None:
    # A shell's background jobs ignore SIGINT, and their children inherit that.
    handle = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = await start_script(
        handle + "client = opened()\n"
        f"try: client.embed([{HANG!r}])\n"
        "except KeyboardInterrupt: print(len(client.embed(['x']).embeddings))",
        address,
    )
    await asyncio.wait_for(router.hanging.wait(), WAIT_S)
    process.send_signal(signal.SIGINT)
    output, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (output.strip(), errors) == (b"1", b"")
    assert router.cancelled.is_set()


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in vars(kind).items()
            if not name.startswith("_") and callable(getattr(kind, name))
        }

    assert methods(Penstock) == methods(PenstockSync)
