"""Starting modules of Penstock as processes: services that serve, and commands that end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from penstock.service.child_process import die_with_parent
from penstock.service.free_ports import free_addresses
from penstock.service.store import server_binary
from penstock.testkit.eventually import eventually

START_S, STOP_S = 60.0, 15.0


class Processes:
    """Child processes that write their output to files; all are ended when the context is left.

    Args:
        folder: where the files are.
        shared: variables that every process gets.
    """

    def __init__(self, folder: Path, shared: Mapping[str, str]) -> None:
        self._folder, self._shared = folder, shared
        self.kill = False
        """Whether to kill them at the end instead of asking them to stop."""
        self._names: list[str] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Processes:
        return self

    async def __aexit__(self, *_: object) -> None:
        statuses = {name: await self._stop(name) for name in reversed(self._names)}
        failed = {name: status for name, status in statuses.items() if status and not self.kill}
        assert not failed, f"did not stop cleanly: {failed}; output in {self._folder}"

    async def _stop(self, name: str) -> int:
        process = self._running.get(name)
        if process is None:
            return 0
        if process.returncode is None:
            process.kill() if self.kill else process.terminate()
        try:
            return await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def run(self, name: str, *command: str, **settings: str) -> None:
        """Start a program; the last started is stopped first."""
        self._names.append(name)
        with (self._folder / f"{name}.log").open("wb") as output:
            self._running[name] = await asyncio.create_subprocess_exec(
                *die_with_parent(command),
                env={**environment(), **self._shared, **_variables(settings)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )

    async def service(self, name: str, module: str, address: str, **settings: str) -> None:
        """Start a service and wait until its health is SERVING."""
        await self._serving(name, _python(module), address, listen=address, **settings)

    async def cell(self, services: Sequence[str], address: str, **settings: str) -> None:
        """Start services in one process, and wait until the one at the address serves."""
        command = _python("stack", "cell", ",".join(services))
        await self._serving("cell", command, address, **settings)

    async def _serving(
        self, name: str, command: Sequence[str], address: str, **settings: str
    ) -> None:
        await self.run(name, *command, **settings)

        async def serves() -> bool:
            status = self._running[name].returncode
            if status is not None:
                raise RuntimeError(f"{name} ended with {status}: {self._output(name)}")
            return await _is_healthy(address)

        await eventually(serves, START_S)

    async def store(self, name: str, folder: Path) -> str:
        """Start an embedded store that keeps nothing after its end; gives its URL when it listens.

        `folder` must be short enough for the path of a unix socket.
        """
        path = folder / f"{name}.sock"
        listen = ("--port", "0", "--unixsocket", str(path), "--dir", str(folder))
        nothing_kept = ("--save", "", "--appendonly", "no")
        await self.run(f"store-{name}", server_binary(), *listen, *nothing_kept)
        await eventually(path.exists, START_S)
        return f"unix://{path}"

    def _output(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")


def environment() -> dict[str, str]:
    """This process's environment without what a developer may have set for Penstock."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")}
    return {**kept, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PENSTOCK_{key.upper()}": value for key, value in settings.items()}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of Penstock."""
    return (sys.executable, "-u", "-m", f"penstock.{module}", *arguments)


async def _is_healthy(address: str) -> bool:
    """Whether grpc.health.v1 at an address says SERVING."""
    async with grpc.aio.insecure_channel(address) as channel:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False


def named_addresses(*names: str) -> dict[str, str]:
    """A free address for each name."""
    return dict(zip(names, free_addresses(len(names)), strict=True))


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    output: str
    errors: str


async def command(module: str, *arguments: str, **settings: str) -> Ended:
    """Run a module of Penstock to its end; it may take a minute."""
    process = await asyncio.create_subprocess_exec(
        *die_with_parent(_python(module, *arguments)),
        env={**environment(), **_variables(settings)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), START_S)
    return Ended(process.returncode or 0, output.decode(), errors.decode())
