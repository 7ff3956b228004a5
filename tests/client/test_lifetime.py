"""How a client begins and ends: closed, used elsewhere, shared by threads, forked, interrupted,
left open. Scripts are users' programs.
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
from penstock.testkit.router import HANG, KEY, ScriptedRouter

SOON_S = 20


def open_script(body: str, address: str, **env: str) -> asyncio.Future[asyncio.subprocess.Process]:
    head = f"from penstock.client import *\nopened = lambda: PenstockSync({address!r}, {KEY!r})\n"
    return asyncio.ensure_future(
        asyncio.create_subprocess_exec(
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
    )


async def run_script(body: str, address: str, **env: str) -> tuple[str, str]:
    """What a program of these lines prints and complains of; it must end well."""
    process = await open_script(body, address, **env)
    out, complaints = await asyncio.wait_for(process.communicate(), SOON_S)
    assert process.returncode == 0, complaints.decode()
    return out.decode().strip(), complaints.decode()


async def in_thread(act: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(act), SOON_S)


@pytest.mark.parametrize("plain", [False, True], ids=["stream", "plain"])
async def test_closing_ends_calls_under_way_and_is_for_ever(
    address: str, router: ScriptedRouter, plain: bool
) -> None:
    client = Penstock(address, KEY, plain=plain)
    call = asyncio.create_task(client.embed([HANG]))
    await asyncio.wait_for(router.hanging.wait(), SOON_S)
    await client.close()
    await client.close()
    with pytest.raises(NotOpen, match="closed while the call was under way"):
        await call
    with pytest.raises(NotOpen, match="the client was closed"):
        await client.embed(["x"])


async def test_closing_the_sync_client(address: str, router: ScriptedRouter) -> None:
    def use() -> None:
        client, other = PenstockSync(address, KEY), PenstockSync(address, KEY)
        assert client.embed(["four"]).embeddings[0].values[0] == 4.0
        client.close()
        client.close()
        for act in (
            lambda: client.embed(["x"]),
            client.list_models,
            lambda: list(client.generate_stream("x")),
        ):
            with pytest.raises(NotOpen):
                act()
        assert other.embed(["four"]).embeddings
        other.close()
        with pytest.raises(NotOpen):
            client.embed(["x"])

    await in_thread(use)


async def test_sync_clients_share_one_thread_which_ends_with_the_last(address: str) -> None:
    def threads() -> int:
        return sum(thread.name == "penstock-client" for thread in threading.enumerate())

    def use() -> None:
        with PenstockSync(address, KEY) as one, PenstockSync(address, KEY) as two:
            assert one.embed(["x"]).embeddings
            assert two.embed(["x"]).embeddings
            assert threads() == 1
        assert threads() == 0

    await in_thread(use)


async def test_a_client_belongs_to_one_loop(address: str) -> None:
    def use() -> None:
        client = Penstock(address, KEY)  # outside any loop: the first call decides
        assert asyncio.run(client.embed(["x"])).embeddings
        with pytest.raises(NotOpen, match="another event loop"):
            asyncio.run(client.embed(["x"]))

    await in_thread(use)


async def test_a_sync_stream_that_is_left_ends_at_the_router(
    address: str, router: ScriptedRouter
) -> None:
    def use() -> None:
        with PenstockSync(address, KEY) as client:
            for part in client.generate_stream(HANG):
                assert part.chunk.delta == "a"
                break

    await in_thread(use)
    await asyncio.wait_for(router.cancelled.wait(), SOON_S)


@pytest.mark.parametrize(
    "body",
    [
        "with opened() as it: print(len(it.embed(['x']).embeddings))",
        "it = opened(); print(len(it.embed(['x']).embeddings))",  # never closed
        # nor read to its end
        "it = opened(); it.embed(['x']); parts = it.generate_stream('x'); next(parts); print(1)",
        # a notebook
        (
            "import asyncio\nasync def cell(): "
            "print(len(opened().embed(['x']).embeddings))\nasyncio.run(cell())"
        ),
    ],
    ids=["closed", "left open", "stream left open", "inside a running loop"],
)
async def test_a_program_says_its_result_and_nothing_else(address: str, body: str) -> None:
    assert await run_script(body, address) == ("1", "")


async def test_a_proxy_for_the_web_is_not_asked(address: str) -> None:
    proxy = "http://127.0.0.1:9"
    said, _ = await run_script(
        "with opened() as it: print(len(it.embed(['x']).embeddings))",
        address,
        http_proxy=proxy,
        https_proxy=proxy,
        grpc_proxy=proxy,
        no_proxy="",
        no_grpc_proxy="",
    )
    assert said == "1"


@pytest.mark.parametrize("use", ["it", "opened()"], ids=["the parent's client", "one of its own"])
async def test_a_fork_is_told_what_to_do(address: str, use: str) -> None:
    said, _ = await run_script(
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "it = opened(); it.embed(['x'])\n"
        "if os.fork() == 0:\n"
        f"    try: {use}.embed(['x'])\n"
        "    except NotOpen as error: print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); print(len(it.embed(['x']).embeddings))",
        address,
        # with it gRPC's own handlers may abort the child before anybody is asked
        GRPC_ENABLE_FORK_SUPPORT="0",
    )
    told, after = said.split("\n")
    assert "start processes by spawn" in told
    assert after == "1"


async def test_a_fork_before_the_first_client_is_free(address: str) -> None:
    said, _ = await run_script(
        "import os, sys\n"
        "child = os.fork()\n"
        "with opened() as it: it.embed(['x'])\n"
        "if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "print('child', flush=True)",
        address,
    )
    assert said == "child"


async def test_an_interrupt_cancels_the_call_and_the_client_goes_on(
    address: str, router: ScriptedRouter
) -> None:
    # a shell's background jobs inherit a deaf ear
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = await open_script(
        heard + f"it = opened()\ntry: it.embed([{HANG!r}])\nexcept KeyboardInterrupt: "
        "print(len(it.embed(['x']).embeddings))",
        address,
    )
    await asyncio.wait_for(router.hanging.wait(), SOON_S)
    process.send_signal(signal.SIGINT)
    out, complaints = await asyncio.wait_for(process.communicate(), SOON_S)
    assert (out.strip(), complaints) == (b"1", b"")
    assert router.cancelled.is_set()


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(found).parameters.values())
            for name, found in vars(kind).items()
            if not name.startswith("_") and callable(getattr(kind, name))
        }

    assert methods(Penstock) == methods(PenstockSync)
