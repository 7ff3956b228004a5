"""The scripted provider of the replay: OpenAI's chat completions over TLS, in a process of its own.

It answers with the turns that were recorded, takes as long as `latency` says at its load, keeps the
books of its prefix cache, and notes of each request what it cost and what differed from the
recording. `POST /begin` gives it the runs of the next load and makes it forget the last one; `POST
/end` writes its notes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections import defaultdict, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from penstock.bench.agent_replay.provider.http_server import serve_http
from penstock.bench.agent_replay.provider.latency import SLOTS, service_ms
from penstock.bench.agent_replay.provider.prefix_books import TOKEN_BYTES, PrefixCache, Tokens
from penstock.bench.agent_replay.provider.token_counts import PromptTokens
from penstock.bench.agent_replay.traffic.recordings import MODEL, Json, RecordedRun, read_runs
from penstock.bench.agent_replay.traffic.turn_keys import turn_key
from penstock.service.program import loop_factory
from penstock.service.tls_files import CERTIFICATE_FILE, KEY_FILE

CHAT_PATH = "/v1/chat/completions"
NOT_RECORDED = orjson.dumps({"error": {"message": "no recorded turn follows this", "code": 404}})


@dataclass(frozen=True)
class Load:
    """What `POST /begin` gives.

    Attributes:
        runs: file of the recorded runs.
        factor: by which all times are divided.
        notes: file that `POST /end` writes.
        keeps_prompts: whether prompts are noted as they came.
    """

    runs: str
    factor: float
    notes: str
    keeps_prompts: bool


class Recording:
    """The recorded turns by key; those of equal keys are given one after the other."""

    def __init__(self, runs: list[RecordedRun]) -> None:
        self._runs = {run.name: run for run in runs}
        self._turns: dict[str, deque[tuple[str, int]]] = defaultdict(deque)
        for run in runs:
            for call, end in enumerate(run.ends):
                self._turns[turn_key(run.prompt(end), run.settings)].append((run.name, call))

    def find(self, body: Json) -> tuple[RecordedRun, int] | None:
        """The run and the call that a request belongs to; None for none."""
        turns = self._turns.get(turn_key(body["messages"], body))
        if not turns:
            return None
        turns.rotate(-1)
        name, call = turns[-1]
        return self._runs[name], call


class Upstream:
    """The provider. Not frozen: it has a cache, slots and notes."""

    def __init__(self, tokens: PromptTokens) -> None:
        self._tokens = tokens
        self._notes: list[Json] = []
        self._begin(Load("", 1.0, "", False), [])

    def _begin(self, load: Load, runs: list[RecordedRun]) -> None:
        self._load, self._recording = load, Recording(runs)
        self._cache, self._slots, self._busy = PrefixCache(), asyncio.Semaphore(SLOTS), 0
        self._notes.clear()

    async def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for a request."""
        match path:
            case "/begin":
                load = Load(**json.loads(body))
                self._begin(load, read_runs(Path(load.runs)))
                return 200, b"{}"
            case "/end":
                lines = b"".join(orjson.dumps(note) + b"\n" for note in self._notes)
                Path(self._load.notes).write_bytes(lines)
                return 200, b"{}"
            case _ if path == CHAT_PATH:
                return await self._chat(orjson.loads(body))
            case _:
                return 404, NOT_RECORDED

    async def _chat(self, body: Json) -> tuple[int, bytes]:
        came_s = time.perf_counter()
        found = self._recording.find(body)
        if found is None:
            return 404, NOT_RECORDED
        run, call = found
        message = run.messages[run.ends[call]]
        prompt = self._tokens.prompt(body)
        async with self._slots:
            tokens, taken_ms, batch = await self._compute(prompt, self._tokens.count(message))
        note = {
            "run": run.name,
            "call": call,
            **tokens._asdict(),
            "service_ms": taken_ms,
            "batch": batch,
            "took_ms": (time.perf_counter() - came_s) * 1e3,
        }
        if self._load.keeps_prompts:
            note |= {"messages": body["messages"], "tools": body.get("tools", [])}
        self._notes.append(note)
        return 200, _completion(message, tokens, len(self._notes))

    async def _compute(self, prompt: bytes, output: int) -> tuple[Tokens, float, int]:
        """Tokens, milliseconds before they are divided, and answers at once of one answer."""
        began_s = time.perf_counter()
        self._busy += 1
        batch, factor = self._busy, self._load.factor
        try:
            cached, written = self._cache.read_and_keep(prompt, began_s * factor)
            tokens = Tokens(len(prompt) // TOKEN_BYTES, cached, written, output)
            taken_ms = service_ms(tokens.input - cached, output, batch)
            end_s = began_s + taken_ms / 1e3 / factor
            await asyncio.sleep(max(0.0, end_s - time.perf_counter()))
        finally:
            self._busy -= 1
        return tokens, taken_ms, batch


def _completion(message: Json, tokens: Tokens, number: int) -> bytes:
    """A chat completion."""
    calls = message.get("tool_calls")
    usage: dict[str, Any] = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.written,
        },
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "tool_calls" if calls else "stop",
    }
    return orjson.dumps(
        {
            "id": f"chatcmpl-replay-{number}",
            "object": "chat.completion",
            "created": 1_772_355_600 + number,
            "model": MODEL,
            "choices": [choice],
            "usage": usage,
        }
    )


def begin_body(load: Load) -> bytes:
    """The body of `POST /begin`."""
    return orjson.dumps(asdict(load))


async def _serve(tls_folder: Path, tokenizer_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_folder / CERTIFICATE_FILE, tls_folder / KEY_FILE)
    upstream = Upstream(PromptTokens(tokenizer_file))
    async with serve_http(upstream.answer, context) as address:
        print(address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve until standard input is closed; the address is the first line of output."""
    parser = argparse.ArgumentParser(description="The scripted provider of agent-replay.")
    parser.add_argument("--tls", type=Path, required=True, help="folder of its certificate")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(arguments.tls, arguments.tokenizer))


if __name__ == "__main__":
    main()
