"""Which change broke a prefix, and what it cost, against changes that were injected and the
provider's own books.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from penstock.bench.runs.injected import CHANGES, Prompt, prompt_of
from penstock.bench.runs.provider_cache import (
    CACHED_MICROUSD_PER_MTOK,
    INPUT_MICROUSD_PER_MTOK,
    Bill,
    ProviderCache,
)
from penstock.bench.tokens.data import Trajectory
from penstock.prices.prices import ModelPrice, Prices
from penstock.prompts.conversation import Conversation, Policy, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.prompts.prefix import NOTE
from penstock.prompts.prefix_breaks import LOSSLESS_REPAIRS, BreakKind
from penstock.prompts.prefix_cost import CacheTerms, PrefixOutcome, PrefixRead, ReportedPrompt
from penstock.prompts.prefix_history import PrefixHistory

MODEL = "large"
MIN_TURNS = 8
STEP_S, LONG_S = 5.0, 600.0
CACHED = ModelPrice(
    name=MODEL,
    input_microusd_per_mtok=INPUT_MICROUSD_PER_MTOK,
    cached_input_microusd_per_mtok=CACHED_MICROUSD_PER_MTOK,
)
TERMS = CacheTerms()
PRICES = Prices({MODEL: CACHED})
AT_BREAKPOINTS_ONLY = {BreakKind.BREAKPOINT}
"""Breaks that OpenAI's cache, which the books follow, does not know."""


@dataclass
class Counts:
    """What was found. Not frozen: it counts.

    Attributes:
        injected: changes by kind.
        named: of these, named with the right kind.
        wrong: kinds that were said instead.
        said_microusd: what the losses cost by Penstock's account.
        booked_microusd: what they cost by the provider's books.
        evictions: prefixes that the provider dropped.
        evictions_named: of these, said to be dropped or kept no longer.
        blamed_wrongly: breaks or whole prefixes that were said to be evicted.
    """

    injected: Counter[BreakKind] = field(default_factory=Counter)
    named: Counter[BreakKind] = field(default_factory=Counter)
    wrong: Counter[tuple[BreakKind, BreakKind | None]] = field(default_factory=Counter)
    said_microusd: float = 0.0
    booked_microusd: float = 0.0
    evictions: int = 0
    evictions_named: int = 0
    blamed_wrongly: int = 0


def together(parts: Sequence[Counts]) -> Counts:
    """The counts of all these conversations."""
    total = Counts()
    for part in parts:
        for name, value in vars(part).items():
            setattr(total, name, getattr(total, name) + value)
    return total


def cost_error(parts: Sequence[Counts]) -> dict[str, float]:
    """How far Penstock's account of what the losses cost is from the provider's books, as a
    share.
    """
    total = together(parts)
    return {"prefix_cost_error": abs(total.said_microusd / total.booked_microusd - 1)}


def count_by_task(trajectories: Iterable[Trajectory]) -> list[Counts]:
    """The counts of each task, whose conversations are alike."""
    tasks: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        if len(trajectory.turns) >= MIN_TURNS:
            tasks.setdefault(trajectory.task, []).append(trajectory)
    return [count(alike) for alike in tasks.values()]


def count(trajectories: Iterable[Trajectory]) -> Counts:
    """Inject every change into every conversation that is long enough, and evict each once."""
    counts = Counts()
    for trajectory in trajectories:
        if len(trajectory.turns) < MIN_TURNS:
            continue
        before, after = _prompts(trajectory)
        for kind, change in CHANGES.items():
            changed = change(after)
            if changed is not None:
                _inject(counts, kind, before, after, changed)
        for idle_s in (STEP_S, LONG_S):
            _evict(counts, before, after, idle_s)
    return counts


def _prompts(trajectory: Trajectory) -> tuple[Prompt, Prompt]:
    """The last but one prompt of a conversation and its last: each ends before an answer."""
    turns = trajectory.turns
    ends = [n for n, turn in enumerate(turns) if turn.role == "assistant" and n >= MIN_TURNS - 2]
    end = ends[-1] if ends else len(turns) - 2
    next_turns: tuple[Turn, ...] = turns[: min(len(turns), end + 2)]
    return prompt_of(turns[:end], trajectory.tools), prompt_of(next_turns, trajectory.tools)


class _Call:
    """One conversation: Penstock's history beside the provider's books."""

    def __init__(self) -> None:
        self.provider, self.history, self.now_s = ProviderCache(), PrefixHistory(), 0.0

    def send(self, prompt: Prompt) -> tuple[PrefixRead, Bill, BreakKind | None]:
        """Send a prompt; what is said of its prefix, its bill, and what is said to have broken."""
        conversation, settings = prompt.conversation, prompt.settings
        compared = self.history.compare("c", conversation, settings, prompt.without_images)
        bill = self.provider.answer(conversation, settings, self.now_s)
        reported = ReportedPrompt(bill.input_tokens, bill.cached_tokens, 0, self.now_s)
        read = self.history.answered(compared, reported)
        return read, bill, compared.broken.kind if compared.broken else None


def _inject(
    counts: Counts, kind: BreakKind, before: Prompt, after: Prompt, changed: Prompt
) -> None:
    call, unchanged = _Call(), _Call()
    for side in (call, unchanged):
        side.send(before)
        side.now_s += STEP_S
    read, bill, said = call.send(changed)
    _, whole, _ = unchanged.send(after)
    counts.injected[kind] += 1
    counts.named[kind] += said is kind
    if said is not kind:
        counts.wrong[kind, said] += 1
    counts.blamed_wrongly += read.outcome in (PrefixOutcome.EVICTED, PrefixOutcome.EXPIRED)
    if kind not in AT_BREAKPOINTS_ONLY and read.outcome is PrefixOutcome.BROKEN:
        counts.said_microusd += PRICES.lost_prefix_microusd(MODEL, read.lost_tokens)
        counts.booked_microusd += _booked_microusd(bill, whole)


def _booked_microusd(bill: Bill, whole: Bill) -> float:
    """What the provider charged more than it would have, had nothing changed: for the tokens that
    it did not read, not for a prompt that became longer or shorter.
    """
    most = (bill.input_tokens - 1) // TERMS.step_tokens * TERMS.step_tokens
    lost = max(0, min(whole.cached_tokens, most) - bill.cached_tokens)
    return lost * (INPUT_MICROUSD_PER_MTOK - CACHED_MICROUSD_PER_MTOK) / 1e6


def _evict(counts: Counts, before: Prompt, after: Prompt, idle_s: float) -> None:
    call = _Call()
    call.send(before)
    if idle_s < LONG_S:
        call.provider.evict()
    call.now_s += idle_s
    read, bill, _ = call.send(after)
    if read.readable_tokens and not bill.cached_tokens:
        counts.evictions += 1
        expected = PrefixOutcome.EVICTED if idle_s < LONG_S else PrefixOutcome.EXPIRED
        counts.evictions_named += read.outcome is expected


def lossy_repairs(trajectories: Iterable[Trajectory]) -> tuple[int, int]:
    """Repairs that were made, and those after which the model would read something else.

    A repair is lossless where the same lines, turns and tools are there, whatever their order, and
    the schemas have the same values.
    """
    policy = Policy(later_system_turn=True, sort_schema_keys=True, lossless=False)
    optimiser = Optimiser(policy)
    made = lossy = 0
    for trajectory in trajectories:
        if len(trajectory.turns) < MIN_TURNS:
            continue
        _, after = _prompts(trajectory)
        for kind in LOSSLESS_REPAIRS:
            changed = CHANGES[kind](after)
            if changed is not None:
                free = _without_breakpoints(changed.conversation)
                repaired = optimiser.optimise(free).conversation
                made += repaired != free
                lossy += _content(repaired) != _content(free)
    return made, lossy


def _without_breakpoints(conversation: Conversation) -> Conversation:
    """Nothing before a caller's breakpoint is repaired."""
    turns = tuple(replace(turn, breakpoint=False) for turn in conversation.turns)
    return replace(conversation, turns=turns)


def _content(conversation: Conversation) -> tuple[object, ...]:
    """What the model reads, without order: lines of system turns, other turns, tools."""
    lines = Counter(
        line.strip()
        for turn in conversation.turns
        if turn.role == "system"
        for line in turn.content.replace(NOTE, "").split("\n")
    )
    others = tuple(turn for turn in conversation.turns if turn.role != "system")
    tools = sorted(
        (tool.name, tool.description, json.dumps(json.loads(tool.parameters), sort_keys=True))
        for tool in conversation.tools
    )
    return lines, others, tools
