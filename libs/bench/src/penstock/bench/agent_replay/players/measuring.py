"""Starts what the replay needs, and plays the workloads of the parts that are asked for."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bench.agent_replay.players import embeddings, workloads
from penstock.bench.agent_replay.players.ablations import Ablation, ablation
from penstock.bench.agent_replay.players.embeddings import Embedded
from penstock.bench.agent_replay.players.gateway import Gateway, gateway
from penstock.bench.agent_replay.players.playing import Provider, play, provider_process
from penstock.bench.agent_replay.players.plays import Play
from penstock.bench.agent_replay.players.workloads import Plan
from penstock.bench.agent_replay.provider.prefix_books import WRITES_COST
from penstock.bench.agent_replay.provider.token_counts import PromptTokens
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.progress import say
from penstock.service.default_models import CHAT

Plays = Mapping[str, Mapping[str, Play]]
"""Plays by workload and by the name of their arm."""
PLANS: Mapping[str, Callable[[Options, PromptTokens], list[Plan]]] = {
    "timed": workloads.timed,
    "w1": workloads.as_recorded,
    "w2": workloads.with_heads,
    "w3": workloads.closed,
}
W4 = "w4"
PARTS = (*PLANS, W4)
"""The workloads, each of which can be played alone."""


@dataclass
class Measured:
    """What was played. Not frozen: it grows."""

    plays: dict[str, dict[str, Play]] = field(default_factory=dict)
    embedded: Embedded | None = None
    ablations: dict[str, Ablation] = field(default_factory=dict)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    """By workload and arm: why it was not played."""


async def measure(options: Options) -> Measured:
    """Play the workloads."""
    parts = (options.part,) if options.part else PARTS
    tokenizer = tokenizer_file()
    tokens = PromptTokens(tokenizer)
    plans = [plan for part in parts if part in PLANS for plan in PLANS[part](options, tokens)]
    measured = Measured()
    async with _running(tokenizer, [*(one.name for one, _ in plans), embeddings.WORKLOAD]) as (
        provider,
        penstock,
    ):
        for number, plan in enumerate(plans):
            await _play(measured, plan, provider, penstock, backwards=bool(number % 2))
        if W4 in parts:
            say("agent-replay: w4")
            count = workloads.sizes(options).embedded
            measured.embedded = await embeddings.measure(options, provider, penstock, count)
    for part in parts:
        if part in workloads.ABLATED:
            say(f"agent-replay: {part}, each technique alone and left out")
            runs = workloads.ablated(options, workloads.ABLATED[part])
            measured.ablations[part] = ablation(runs, tokens, WRITES_COST)
    return measured


def tokenizer_file() -> Path:
    """The tokenizer of the newest revision of the default chat model."""
    revisions = (home_folder() / "models" / CHAT).glob("*/tokenizer.json")
    return max(revisions, key=lambda path: (len(path.parent.name), path.parent.name))


@contextlib.asynccontextmanager
async def _running(
    tokenizer: Path, names: Sequence[str]
) -> AsyncIterator[tuple[Provider, Gateway]]:
    """The provider and the stack before it."""
    say("agent-replay: starting the provider and the stack")
    with tempfile.TemporaryDirectory(prefix="penstock-replay-") as files:
        folder = Path(files)
        home = folder / "home"
        home.mkdir()
        async with (
            provider_process(folder, tokenizer) as provider,
            gateway(home_folder(), home, provider.address, provider.ca_file, names) as penstock,
        ):
            yield provider, penstock


async def _play(
    measured: Measured, plan: Plan, provider: Provider, penstock: Gateway, *, backwards: bool
) -> None:
    """Play a workload by each of its arms; in the other order each second time."""
    workload, arms = plan
    by_arm = measured.plays.setdefault(workload.name, {})
    for arm in reversed(arms) if backwards else arms:
        say(f"agent-replay: {workload.name} {arm.title}")
        try:
            by_arm[arm.name] = await play(provider, penstock, arm, workload)
        except TimeoutError as error:
            # Another gateway that does not start here is left out, and the page says so.
            say(f"agent-replay: {arm.title} is left out: {error}")
            measured.left_out[workload.name, arm.title] = str(error)
