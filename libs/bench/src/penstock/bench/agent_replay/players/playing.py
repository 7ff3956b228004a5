"""Plays one workload by one arm: plan, provider, load generator, and what each of them noted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from penstock.bench.agent_replay.players.arms import Arm, Via
from penstock.bench.agent_replay.players.gateway import Gateway
from penstock.bench.agent_replay.players.load_plan import Answered, PlannedRun, Target, write_plan
from penstock.bench.agent_replay.players.plays import Noted, Play, Workload
from penstock.bench.agent_replay.provider.upstream import Load, begin_body
from penstock.bench.agent_replay.traffic.recordings import MODEL, write_runs
from penstock.bench.agent_replay.traffic.requests import CHAT_PATH, chat_body
from penstock.bench.edge.http_client import HttpClient
from penstock.bench.edge.litellm import Served, litellm_proxy
from penstock.cli.dev_authority import HERE, Authority
from penstock.service.tls_files import AUTHORITIES_FILE


@dataclass(frozen=True)
class Provider:
    """The scripted provider's process."""

    address: str
    ca_file: Path
    folder: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def target(self, arm: Arm) -> Target:
        """Where a direct arm's calls go."""
        return Target(
            self.address, CHAT_PATH, arm.headers, str(self.ca_file), dictionary=arm.dictionary
        )

    def served(self) -> Served:
        """It as a proxy knows it."""
        return Served(f"https://{self.address}/v1", (MODEL,), ca_file=self.ca_file)

    def new_file(self, name: str) -> Path:
        """A file that is not there yet."""
        return self.folder / f"{next(self._numbers)}-{name}"

    async def begin(self, workload: Workload) -> Path:
        """Give it a workload's recordings; the file that `end` will write."""
        runs, notes = self.new_file("runs"), self.new_file("notes")
        write_runs(runs, workload.runs)
        load = Load(str(runs), workload.factor, str(notes), workload.keeps_prompts)
        await self._post("/begin", begin_body(load))
        return notes

    async def end(self) -> None:
        """Have it write its notes."""
        await self._post("/end", b"{}")

    async def _post(self, path: str, body: bytes) -> None:
        client = HttpClient(self.address, tls=ssl.create_default_context(cafile=self.ca_file))
        await client.send(client.post(path, body))
        client.close()


@contextlib.asynccontextmanager
async def provider_process(folder: Path, tokenizer_file: Path) -> AsyncIterator[Provider]:
    """Run the scripted provider with a certificate of its own authority."""
    now = datetime.now(UTC)
    tls = folder / "provider-tls"
    Authority.new(now).issue(tls, HERE, now)
    words = ["--tls", str(tls), "--tokenizer", str(tokenizer_file)]
    child = subprocess.Popen(
        [sys.executable, "-m", "penstock.bench.agent_replay.provider.upstream", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        address = (await asyncio.to_thread(child.stdout.readline)).strip()
        yield Provider(address, tls / AUTHORITIES_FILE, folder)
    finally:
        child.stdin.close()
        child.stdout.close()
        await asyncio.to_thread(child.wait, 10)


async def play(provider: Provider, gateway: Gateway, arm: Arm, workload: Workload) -> Play:
    """Play a workload by an arm, alone. A proxy that stands between is started for this.

    Raises:
        RuntimeError: the load generator failed.
        TimeoutError: the proxy does not start.
    """
    async with _target(provider, gateway, arm, workload) as target:
        return await _play(provider, gateway, arm, workload, target)


@contextlib.asynccontextmanager
async def _target(
    provider: Provider, gateway: Gateway, arm: Arm, workload: Workload
) -> AsyncIterator[Target]:
    match arm.via:
        case Via.NOTHING:
            yield provider.target(arm)
        case Via.PENSTOCK:
            yield gateway.target(arm, workload.name)
        case Via.LITELLM_EXACT | Via.LITELLM_SEMANTIC:
            folder = provider.new_file("litellm")
            folder.mkdir()
            is_semantic = arm.via is Via.LITELLM_SEMANTIC
            embeddings = gateway.embeddings(workload.name) if is_semantic else None
            async with litellm_proxy(folder, provider.served(), embeddings) as proxy:
                yield Target(proxy.address, CHAT_PATH, proxy.headers)


async def _play(
    provider: Provider, gateway: Gateway, arm: Arm, workload: Workload, target: Target
) -> Play:
    notes = await provider.begin(workload)
    began_s = gateway.cpu_s()
    answered = await play_runs(provider, target, planned(workload, arm))
    used_s = gateway.cpu_s() - began_s
    await provider.end()
    rows = map(json.loads, notes.read_text(encoding="utf-8").splitlines())
    return Play(arm, workload, answered, tuple(Noted(**row) for row in rows), used_s)


def planned(workload: Workload, arm: Arm) -> list[PlannedRun]:
    """The requests of a workload as an arm's client writes them."""
    return [
        PlannedRun(
            run.name,
            due_s / workload.factor,
            tuple(chat_body(run, call, arm.writing) for call in range(len(run.ends))),
        )
        for run, due_s in zip(workload.runs, workload.due_s, strict=True)
    ]


async def play_runs(
    provider: Provider, target: Target, runs: Sequence[PlannedRun]
) -> tuple[Answered, ...]:
    """Have the load generator play requests.

    Raises:
        RuntimeError: it failed; its own words stand on standard error.
    """
    plan, out = provider.new_file("plan"), provider.new_file("answered")
    write_plan(plan, target, runs)
    words = ["-m", "penstock.bench.agent_replay.players.load", str(plan), str(out)]
    child = await asyncio.create_subprocess_exec(sys.executable, *words)
    if await child.wait():
        raise RuntimeError(f"the load generator ended with status {child.returncode}")
    rows: list[Mapping[str, object]] = [json.loads(line) for line in out.read_text().splitlines()]
    plan.unlink()
    return tuple(Answered(**row) for row in rows)  # type: ignore[arg-type]
