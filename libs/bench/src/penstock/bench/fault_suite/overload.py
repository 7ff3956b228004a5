"""Three times what an instance can do, in an open loop: what is still served, who is shed first,
how soon all is well again, and what memory it takes.

Services are processes of their own. The instance serves one request at a time, so its capacity is
known to nobody but measured: by callers that always have one request more (the peak). Then calls
arrive as a Poisson process whose rate does not depend on answers, half of them of low priority, and
a call is good if it is answered within its deadline. Last, calls at half the peak show when the
services are as quick as before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import grpc
import psutil
from penstock.api.common.v1 import common_pb2
from penstock.api.router.v1 import router_pb2
from penstock.bench.fault_suite.logs import OVERLOAD as LOG
from penstock.bench.fault_suite.logs import append
from penstock.bench.faults.rig import MODEL, ROUTERS, Rig, running
from penstock.testkit.instance import SleepingInstance

TENANT = "overload"
CAPACITY_PER_S = 50.0
FACTOR = 3.0
SECONDS, PEAK_S = 30.0, 10.0
PEAK_BEGINS_AFTER_S = 2.0
DEADLINE_S = 1.0
CALLERS = 64
"""Of the peak: enough to keep the queue filled."""
CLASSES: Sequence[tuple[str, int, float]] = (
    ("low", common_pb2.PRIORITY_LOW, 0.5),
    ("normal", common_pb2.PRIORITY_NORMAL, 0.3),
    ("high", common_pb2.PRIORITY_HIGH, 0.2),
)
"""Priorities and their shares of the calls."""
RECOVERY_CALL_S = 0.3
"""A call at half load that is answered so soon shows that the queues are empty."""
RECOVERED_CALLS = 10
"""So many of them one after the other."""
MAX_RECOVERY_S = 60.0
RUNS = 6
"""As few as an interval can be computed from."""


@dataclass
class Overloaded:
    """What was measured; shares are of the calls of a class."""

    peak_per_s: float = 0.0
    goodput_at_3x: float = 0.0
    served_share: dict[str, float] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    recovery_s: float = 0.0
    memory_mb: float = 0.0

    @property
    def low_class_shed_first(self) -> bool:
        """Whether calls of low priority were served less than those of each other class."""
        low, *others = (self.served_share[name] for name, _, _ in CLASSES)
        return low < min(others)


async def measure(folder: Path, seconds: float = SECONDS, peak_s: float = PEAK_S) -> Overloaded:
    """One measurement."""
    instance = SleepingInstance(1 / CAPACITY_PER_S)
    measured = Overloaded()
    async with running(folder, [TENANT], [], instance=instance, concurrency=1) as rig:
        measured.peak_per_s = await _peak(rig, peak_s)
        before_mb = _memory_mb(rig)
        served, sent = Counter[str](), Counter[str]()
        await _open_loop(rig, FACTOR * measured.peak_per_s, seconds, served, sent, measured)
        measured.goodput_at_3x = served.total() / seconds / measured.peak_per_s
        measured.served_share = {name: served[name] / max(sent[name], 1) for name, _, _ in CLASSES}
        measured.recovery_s = await _recovered(rig, measured.peak_per_s / 2)
        measured.memory_mb = _memory_mb(rig) - before_mb
    return measured


async def _peak(rig: Rig, seconds: float) -> float:
    """Answers a second of callers that always have one request more, once all have begun."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time() + PEAK_BEGINS_AFTER_S
    end_s, good = begin_s + seconds, 0

    async def caller(number: int) -> None:
        nonlocal good
        turn = 0
        while loop.time() < end_s:
            turn += 1
            code = await _call(rig, f"peak {number} {turn}", 0, 10.0)
            good += code == "OK" and begin_s <= loop.time() < end_s

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return good / seconds


async def _open_loop(
    rig: Rig,
    per_s: float,
    seconds: float,
    served: Counter[str],
    sent: Counter[str],
    measured: Overloaded,
) -> None:
    rng, loop = Random(1), asyncio.get_running_loop()
    codes: Counter[str] = Counter()
    names, numbers, weights = zip(*CLASSES, strict=True)

    async def call(count: int, name: str, priority: int) -> None:
        code = await _call(rig, f"overload {count}", priority, DEADLINE_S)
        served[name] += code == "OK"
        codes[code] += 1

    began_s, due_s = loop.time(), 0.0
    async with asyncio.TaskGroup() as group:
        while (due_s := due_s + rng.expovariate(per_s)) < seconds:
            await asyncio.sleep(max(began_s + due_s - loop.time(), 0.0))
            (at,) = rng.choices(range(len(names)), weights)
            sent[names[at]] += 1
            group.create_task(call(sent.total(), names[at], numbers[at]))
    measured.codes = dict(codes)


async def _recovered(rig: Rig, per_s: float) -> float:
    """Seconds until calls are answered at once again."""
    loop = asyncio.get_running_loop()
    began_s, quick = loop.time(), 0
    while loop.time() - began_s < MAX_RECOVERY_S:
        start_s = loop.time()
        code = await _call(rig, f"after {start_s}", 0, 10.0)
        quick = quick + 1 if code == "OK" and loop.time() - start_s < RECOVERY_CALL_S else 0
        if quick == RECOVERED_CALLS:
            return loop.time() - began_s
        await asyncio.sleep(1 / per_s)
    return MAX_RECOVERY_S


async def _call(rig: Rig, text: str, priority: int, deadline_s: float) -> str:
    """One call; returns OK or the status code."""
    options = router_pb2.CallOptions(model=MODEL)
    options.priority = priority  # type: ignore[assignment]  # a number of the enumeration
    request = router_pb2.EmbedRequest(texts=[text], options=options)
    try:
        await rig.routers[ROUTERS[0]].Embed(
            request, metadata=rig.metadata(TENANT), timeout=deadline_s
        )
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def _memory_mb(rig: Rig) -> float:
    children = [psutil.Process(child.pid) for child in rig.children.values()]
    return sum(child.memory_info().rss for child in children) / 2**20


def main() -> int:
    """Measure, and append a line to the log for each measurement."""
    parser = argparse.ArgumentParser(prog="python -m penstock.bench.fault_suite.overload")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--log", type=Path, default=LOG)
    given = parser.parse_args()
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory(prefix="penstock-overload-") as folder:
            measured = asyncio.run(measure(Path(folder), given.seconds))
        row = {**asdict(measured), "low_class_shed_first": measured.low_class_shed_first}
        append(given.log, {**row, "seconds": given.seconds})
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
