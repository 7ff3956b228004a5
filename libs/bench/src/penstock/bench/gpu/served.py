"""Rates of the FP16 model as it is served: through the batcher, one by one and in batches; and one
text a request over KServe v2, beside Triton.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.batching.batcher_process import BatcherProcess, batcher_process
from penstock.bench.harness.echo import EchoAddresses
from penstock.bench.harness.load import closed_loop
from penstock.bench.serving.infer_requests import Requests, Server
from penstock.bench.serving.servers import PeerAbsent, our_server, triton_server
from penstock.models.samples import SAMPLE_TEXTS

CALLERS = 128
MAX_ROWS = 128


@dataclass(frozen=True)
class Served:
    """Running servers of the same folder; `triton` is None where it cannot run, and `why` says
    why.
    """

    batcher: BatcherProcess
    ours: Server
    triton: Server | None
    why: str

    async def rates(self, requests: Requests, seconds: float) -> dict[str, float]:
        """Answers a second of each way, one after the other."""
        rates = {}
        for name, rows in (("batcher, one by one", 1), ("batcher, in batches", MAX_ROWS)):
            await self.batcher.set_max_rows(rows)
            loaded = await closed_loop(self._embed, CALLERS, seconds)
            rates[name] = loaded.rps
        rates["KServe v2"] = (await self.ours.load(requests, CALLERS, seconds)).rps
        if self.triton is not None:
            rates["Triton"] = (await self.triton.load(requests, CALLERS, seconds)).rps
        return rates

    async def _embed(self, number: int) -> object:
        return await self.batcher.embed(f"{number} {SAMPLE_TEXTS[number % len(SAMPLE_TEXTS)]}")


@contextlib.asynccontextmanager
async def serving(
    echo: EchoAddresses, home: Path, model: str, providers: tuple[str, ...]
) -> AsyncIterator[Served]:
    """Start all of them; `home` has the model folder."""
    settings = {"providers": ",".join(providers)}
    file = home / "models" / model / "1" / "model.onnx"
    async with contextlib.AsyncExitStack() as owned:
        batcher = await owned.enter_async_context(batcher_process(echo, home, model, **settings))
        ours = await owned.enter_async_context(our_server(home, model, 1, **settings))
        triton, why = None, ""
        try:
            beside = triton_server(file, 1, provider=providers[0])
            triton = await owned.enter_async_context(beside)
        except PeerAbsent as absent:
            why = str(absent)
        yield Served(batcher, ours, triton, why)


def served_ratios(rates: Mapping[str, float]) -> dict[str, float]:
    """The figures of one round."""
    figures = {
        "served_batched_vs_single": rates["batcher, in batches"] / rates["batcher, one by one"]
    }
    if "Triton" in rates:
        figures["vs_triton_rps"] = rates["batcher, in batches"] / rates["Triton"]
        figures["kserve_vs_triton_rps"] = rates["KServe v2"] / rates["Triton"]
    return figures
