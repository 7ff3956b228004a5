"""The load generator of the replay, in a process of its own.

Runs start when they are due, whether or not earlier ones are answered; inside a run the next call
follows the answer. A latency is the time from a call's sending to its whole answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ssl
import time
from dataclasses import asdict, replace
from pathlib import Path

import orjson
from penstock.bench.agent_replay.players.load_plan import Answered, PlannedRun, Target, read_plan
from penstock.bench.agent_replay.traffic.recordings import Json
from penstock.bench.edge.http_client import Answer, HttpClient, HttpError
from penstock.service.program import loop_factory

COMPUTED = ("", "none", "miss", "bypassed", "unspecified")
"""Outcomes of a cache by which an answer was computed."""
RECEIPTS_AT_ONCE = 16


class ExactDictionary:
    """What a careful client writes in a few lines: answers to equal requests, kept in a dictionary,
    and one call for those that are equal and in flight.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._answers: dict[bytes, asyncio.Future[Answer]] = {}

    async def ask(self, path: str, body: bytes) -> tuple[Answer, bool]:
        """The answer, and whether it was there."""
        if known := self._answers.get(body):
            return await asyncio.shield(known), True
        request = self._client.post(path, body)
        asked = self._answers[body] = asyncio.ensure_future(self._client.ask(request))
        try:
            return await asyncio.shield(asked), False
        except HttpError:
            del self._answers[body]
            raise


class Player:
    """Plays runs against a target. Not frozen: it collects what was answered."""

    def __init__(self, target: Target, client: HttpClient) -> None:
        self._target, self._client = target, client
        self._dictionary = ExactDictionary(client) if target.dictionary else None
        self._began_s = time.perf_counter()
        self.answered: list[Answered] = []

    async def play(self, run: PlannedRun) -> None:
        """Play one run from the moment at which it is due; a failed call ends it."""
        await asyncio.sleep(run.due_s - (time.perf_counter() - self._began_s))
        for number, body in enumerate(run.bodies):
            answered = await self._call(run.name, number, orjson.dumps(body))
            self.answered.append(answered)
            if answered.error:
                return

    async def _call(self, run: str, number: int, body: bytes) -> Answered:
        sent_s = time.perf_counter()
        error, reused, answer = "", "", None
        try:
            answer, reused = await self._ask(body)
        except (HttpError, OSError) as failed:
            error = str(failed) or type(failed).__name__
        latency_ms = (time.perf_counter() - sent_s) * 1e3
        since_s = sent_s - self._began_s
        if answer is None:
            return Answered(run, number, since_s, latency_ms, error=error)
        receipt = _fields(answer.receipt)
        return Answered(
            run,
            number,
            since_s,
            latency_ms,
            reused or _reused(receipt.get("cache", "")),
            _message(bytes(answer.body)),
            request_id=receipt.get("id", ""),
        )

    async def _ask(self, body: bytes) -> tuple[Answer, str]:
        if self._dictionary is not None:
            answer, known = await self._dictionary.ask(self._target.path, body)
            return answer, "dictionary" if known else ""
        return await self._client.ask(self._client.post(self._target.path, body)), ""

    async def with_receipts(self) -> list[Answered]:
        """What was answered, with what the receipts say."""
        slots = asyncio.Semaphore(RECEIPTS_AT_ONCE)

        async def one(answered: Answered) -> Answered:
            if not answered.request_id:
                return answered
            async with slots:
                body = await self._client.get(f"/v1/receipts/{answered.request_id}")
            return with_receipt(answered, orjson.loads(body))

        return await asyncio.gather(*(one(each) for each in self.answered))


def with_receipt(answered: Answered, receipt: Json) -> Answered:
    """The call with what its receipt says it cost and saved."""
    savings: dict[str, int] = {}
    for saving in receipt.get("savings", ()):
        technique = saving["technique"]
        savings[technique] = savings.get(technique, 0) + int(saving.get("microusd", 0))
    paid = int(receipt.get("cost", {}).get("paid_microusd", 0))
    return replace(answered, paid_microusd=paid, savings=savings)


def _fields(receipt: str) -> dict[str, str]:
    """The fields of the receipt's header."""
    return dict(each.split("=", 1) for each in receipt.split(";") if "=" in each)


def _reused(outcome: str) -> str:
    return "" if outcome in COMPUTED else outcome


def _message(body: bytes) -> Json:
    """The message of a chat, or a digest of the vectors of an embedding."""
    answer = orjson.loads(body)
    if "choices" in answer:
        message: Json = answer["choices"][0]["message"]
        return message
    vectors = orjson.dumps([each["embedding"] for each in answer["data"]])
    return {"vectors": hashlib.blake2b(vectors, digest_size=16).hexdigest()}


async def _run(plan: Path, out: Path) -> None:
    target, runs = read_plan(plan)
    tls = ssl.create_default_context(cafile=target.ca_file) if target.ca_file else None
    client = HttpClient(target.address, target.headers, tls)
    player = Player(target, client)
    await asyncio.gather(*(player.play(run) for run in runs))
    answered = await player.with_receipts() if target.receipts else player.answered
    out.write_bytes(b"".join(orjson.dumps(asdict(each)) + b"\n" for each in answered))
    client.close()


def main() -> None:
    """Play a plan and write what was answered."""
    parser = argparse.ArgumentParser(description="The load generator of agent-replay.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run(arguments.plan, arguments.out))


if __name__ == "__main__":
    main()
