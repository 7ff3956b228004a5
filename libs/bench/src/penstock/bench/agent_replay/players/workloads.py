"""The workloads: which runs, when they start, and by which arms they are played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.bench.agent_replay.players.arms import (
    CAREFUL,
    DEFAULTS,
    DIRECT,
    LITELLM,
    LITELLM_SEMANTIC,
    OFF,
    OPT_INS,
    Arm,
)
from penstock.bench.agent_replay.players.plays import Workload
from penstock.bench.agent_replay.provider.latency import SLOTS, capacity, service_ms
from penstock.bench.agent_replay.provider.token_counts import PromptTokens
from penstock.bench.agent_replay.traffic import closed_answers
from penstock.bench.agent_replay.traffic.arrivals import AZURE, MOONCAKE, arrivals_s, due_times_s
from penstock.bench.agent_replay.traffic.heads import STYLES
from penstock.bench.agent_replay.traffic.recordings import RecordedRun, first_calls, tau_runs
from penstock.bench.edge import litellm
from penstock.bench.harness.options import Options

FACTOR = 10.0
"""By which all times are divided."""
HIGH_LOAD, LOW_LOAD = 0.7, 0.3
"""Shares of the upstream's capacity."""
TIMED_CALLS, HEAD_CALLS = 6, 12
"""The first calls of each conversation whose times are not divided, and of those with heads."""
UNCACHED_TOKENS = 300
"""Of a typical prompt, for the capacity."""
MAX_CALLS_PER_S, MAX_UNTIMED_CALLS_PER_S = 35.0, 40.0
"""By the wall's clock, so that the provider and not two cores set the times; and where no time is
reported.
"""
ZIPFS = {"w3-00": 0.0, "w3-06": 0.6, "w3-09": 0.9, "w3-11": 1.1}
"""Exponents of the closed answers' workloads."""
CLOSED = "w3-09"
"""The one that is played directly as well."""
GATEWAYS = "w3-09-gateways"
"""Closed answers, fewer of them, that other gateways play as well."""
THREE: tuple[Arm, ...] = (DIRECT, DEFAULTS, OPT_INS)
BY_HAND = ("labelled clock", "block of XML")
"""Styles of heads that the careful client plays as well: to it they are all the same."""


@dataclass(frozen=True)
class Sizes:
    """How much is played.

    Attributes:
        runs: conversations as they were recorded, at most.
        low_load_runs: of these, at the low load.
        head_runs: conversations with each style of head.
        compared: closed answers of the workload that is played directly as well.
        closed: closed answers of each other workload.
        embedded: texts.
        timed_runs: conversations whose times are not divided.
        styles: of heads, at most.
        exponents: of the closed answers' repeats.
    """

    runs: int
    low_load_runs: int
    head_runs: int
    compared: int
    closed: int
    embedded: int
    timed_runs: int
    styles: int
    exponents: tuple[str, ...]


FULL = Sizes(64, 30, 14, 9_000, 800, 700, 20, len(STYLES), tuple(ZIPFS))
QUICK = Sizes(6, 3, 3, 80, 40, 60, 2, 2, (CLOSED,))
ABLATED = {"w1": "", "w2": "block of XML"}
"""The style of head, by the part of the replay."""
Plan = tuple[Workload, tuple[Arm, ...]]


def sizes(options: Options) -> Sizes:
    """The sizes of a run."""
    return QUICK if options.quick else FULL


def recorded(options: Options) -> list[RecordedRun]:
    """The conversations: those for development in a quick run, else those that are reported. Each
    task comes once before any comes again, so the first of them are as different as they can be.
    """
    return tau_runs(options, development=options.quick)


def as_recorded(options: Options, tokens: PromptTokens) -> list[Plan]:
    """W1: conversations as they were recorded, at two loads."""
    runs = recorded(options)
    size = sizes(options)
    high = _workload("w1-70", runs[: size.runs], tokens, (AZURE, HIGH_LOAD), options)
    low = _workload("w1-30", runs[: size.low_load_runs], tokens, (MOONCAKE, LOW_LOAD), options)
    return [(replace(high, keeps_prompts=True), (*THREE, CAREFUL)), (low, (DIRECT, DEFAULTS))]


def gateways() -> tuple[Arm, ...]:
    """The other gateways that can be played here, as `make peers` has installed them."""
    if litellm.program() is None:
        return ()
    return (LITELLM,) if litellm.search_module() is None else (LITELLM, LITELLM_SEMANTIC)


def with_heads(options: Options, tokens: PromptTokens) -> list[Plan]:
    """W2: the same with volatile heads, a workload for each style."""
    runs = [first_calls(run, HEAD_CALLS) for run in recorded(options)[: sizes(options).head_runs]]
    plans: list[Plan] = []
    for number, style in enumerate(list(STYLES)[: sizes(options).styles]):
        styled = [replace(run, head=style) for run in runs]
        made = _workload(f"w2-{number}", styled, tokens, (AZURE, HIGH_LOAD), options)
        arms = (*THREE, CAREFUL) if style in BY_HAND else THREE
        plans.append((replace(made, keeps_prompts=True), arms))
    return plans


def ablated(options: Options, style: str) -> list[RecordedRun]:
    """The conversations on which techniques of shaping are told apart, with a style of head."""
    runs = recorded(options)[: sizes(options).head_runs]
    return [replace(first_calls(run, HEAD_CALLS), head=style) for run in runs]


def closed(options: Options, tokens: PromptTokens) -> list[Plan]:
    """W3: closed answers by the exponent of their repeats."""
    asked, size = closed_answers.questions(options), sizes(options)
    plans: list[Plan] = []
    for name in size.exponents:
        zipf = ZIPFS[name]
        compared = name == CLOSED
        count = min(size.compared if compared else size.closed, len(asked))
        runs = closed_answers.drawn(asked, count, zipf)
        fastest = MAX_CALLS_PER_S if compared else MAX_UNTIMED_CALLS_PER_S
        made = _workload(name, runs, tokens, (AZURE, HIGH_LOAD), options, fastest)
        plans.append((made, (DIRECT, DEFAULTS) if compared else (DEFAULTS,)))
    if others := gateways():
        runs = closed_answers.drawn(asked, min(size.closed, len(asked)), ZIPFS[CLOSED])
        made = _workload(GATEWAYS, runs, tokens, (AZURE, HIGH_LOAD), options)
        plans.append((made, (DIRECT, DEFAULTS, *others)))
    return plans


def timed(options: Options, tokens: PromptTokens) -> list[Plan]:
    """Conversations at times that are not divided, for what Penstock adds."""
    runs = [first_calls(run, TIMED_CALLS) for run in recorded(options)[: sizes(options).timed_runs]]
    made = _workload("w1-timed", runs, tokens, (AZURE, HIGH_LOAD), options)
    return [(replace(made, factor=1.0), (OFF, DIRECT))]


def _workload(
    name: str,
    runs: Sequence[RecordedRun],
    tokens: PromptTokens,
    load: tuple[str, float],
    options: Options,
    fastest: float = MAX_CALLS_PER_S,
) -> Workload:
    """Runs that start by a trace at a share of the capacity, at most so many calls a second."""
    trace, share = load
    rate = share * capacity(_services_ms(runs, tokens))
    calls = sum(len(run.ends) for run in runs)
    starts = min(rate, fastest / FACTOR) * len(runs) / calls
    due_s = due_times_s(arrivals_s(options, trace), len(runs), starts)
    return Workload(name, tuple(runs), tuple(due_s), FACTOR)


def _services_ms(runs: Sequence[RecordedRun], tokens: PromptTokens) -> list[float]:
    """About how long each answer takes with all slots busy."""
    return [
        service_ms(UNCACHED_TOKENS, tokens.count(run.messages[end]), SLOTS)
        for run in runs
        for end in run.ends
    ]
