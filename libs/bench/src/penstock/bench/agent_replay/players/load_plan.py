"""What the load generator is given, and what it gives back: files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penstock.bench.agent_replay.traffic.recordings import Json


@dataclass(frozen=True)
class Target:
    """Where calls go.

    Attributes:
        address: `host:port`.
        path: of the API.
        headers: of every request.
        ca_file: authorities to trust; empty for plaintext.
        dictionary: whether the client keeps answers to equal requests itself.
        receipts: whether each call's receipt is asked for afterwards.
    """

    address: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str = ""
    dictionary: bool = False
    receipts: bool = False


@dataclass(frozen=True)
class PlannedRun:
    """A run: when it starts, in seconds of the wall's clock, and the bodies of its calls in order;
    each is sent when the one before it is answered.
    """

    name: str
    due_s: float
    bodies: tuple[Json, ...]


@dataclass(frozen=True)
class Answered:
    """One call's end, as its client sees it.

    Attributes:
        run: its run.
        call: its number in the run.
        sent_s: when it was sent, in seconds from the load's start.
        latency_ms: until its whole answer.
        reused: how the answer came to be a reused one (`exact_hit`, …); empty for a computed one.
        answer: the message, or for embeddings a digest of the vectors.
        error: why there is no answer; empty for none.
        request_id: of the receipt.
        paid_microusd: by the receipt.
        savings: by the receipt: micro-dollars by technique.
    """

    run: str
    call: int
    sent_s: float
    latency_ms: float
    reused: str = ""
    answer: Json = field(default_factory=dict)
    error: str = ""
    request_id: str = ""
    paid_microusd: int = 0
    savings: Mapping[str, int] = field(default_factory=dict)


def write_plan(path: Path, target: Target, runs: Sequence[PlannedRun]) -> None:
    """Write a plan."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(target)) + "\n")
        for run in runs:
            row = {"name": run.name, "due_s": run.due_s, "bodies": run.bodies}
            file.write(json.dumps(row) + "\n")


def read_plan(path: Path) -> tuple[Target, list[PlannedRun]]:
    """What `write_plan` has written."""
    first, *others = path.read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, others)
    runs = [PlannedRun(row["name"], row["due_s"], tuple(row["bodies"])) for row in rows]
    return Target(**json.loads(first)), runs
