"""A workload, and what came of it in one arm. Values only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from penstock.bench.agent_replay.players.arms import Arm
from penstock.bench.agent_replay.players.load_plan import Answered
from penstock.bench.agent_replay.provider.prefix_books import Tokens
from penstock.bench.agent_replay.traffic.recordings import Json, RecordedRun


@dataclass(frozen=True)
class Noted:
    """One request as the provider saw it; see `upstream`. Times are its own milliseconds."""

    run: str
    call: int
    input: int
    cached: int
    written: int
    output: int
    service_ms: float
    batch: int
    took_ms: float
    messages: Sequence[Json] = ()
    tools: Sequence[Json] = ()

    @property
    def tokens(self) -> Tokens:
        """What it is charged for."""
        return Tokens(self.input, self.cached, self.written, self.output)


@dataclass(frozen=True)
class Workload:
    """Runs, and when each starts.

    Attributes:
        name: of letters, digits and hyphens.
        runs: in the order of their starts.
        due_s: when they start, in seconds of the provider's time.
        factor: by which all times are divided.
        keeps_prompts: whether the provider notes prompts as they came.
    """

    name: str
    runs: tuple[RecordedRun, ...]
    due_s: tuple[float, ...]
    factor: float
    keeps_prompts: bool = False


@dataclass(frozen=True)
class Play:
    """What came of a workload in one arm."""

    arm: Arm
    workload: Workload
    answered: tuple[Answered, ...]
    noted: tuple[Noted, ...] = ()
    cpu_s: float = 0.0
    """CPU seconds of Penstock's processes."""

    def only(self, names: Collection[str]) -> Play:
        """The play of these runs alone."""
        pairs = zip(self.workload.runs, self.workload.due_s, strict=True)
        kept = [(run, due_s) for run, due_s in pairs if run.name in names]
        runs, starts = tuple(run for run, _ in kept), tuple(due_s for _, due_s in kept)
        return replace(
            self,
            workload=replace(self.workload, runs=runs, due_s=starts),
            answered=tuple(each for each in self.answered if each.run in names),
            noted=tuple(note for note in self.noted if note.run in names),
        )

    @property
    def whole_runs(self) -> frozenset[str]:
        """The runs of which every call was answered."""
        failed = {each.run for each in self.errors}
        return frozenset(run.name for run in self.workload.runs if run.name not in failed)

    @property
    def errors(self) -> list[Answered]:
        """Calls without an answer."""
        return [each for each in self.answered if each.error]


def paired(one: Play, other: Play) -> tuple[Play, Play]:
    """Two plays of the same workload with the runs that are whole in both: what was not answered
    costs nothing, and must not look like a saving.
    """
    names = one.whole_runs & other.whole_runs
    return one.only(names), other.only(names)
