"""Closed answers: texts of CLINC150 and Banking77 whose intent is asked for, and BFCL's requests
for a function, drawn so that some are asked more often than others.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from penstock.bench.agent_replay.traffic.recordings import Json, RecordedRun
from penstock.bench.harness.data_sets import BANKING77, CLINC150, banking77
from penstock.bench.harness.options import Options
from penstock.bench.tokens.data import BFCL

SEED = 20260302
INSTRUCTIONS = (
    "You route the requests of customers. Answer with the one intent that fits the request best, "
    "as JSON, and with nothing else. Take `oos` where none fits."
)


class Question(NamedTuple):
    """A request with a closed answer."""

    corpus: str
    instructions: str
    text: str
    answer: Json
    tools: tuple[Json, ...]
    settings: Json


def questions(options: Options) -> list[Question]:
    """All requests of the three corpora, in a fixed order without meaning."""
    found = [*_intents(BANKING77, _banking(options)), *_intents(CLINC150, _clinc(options))]
    found += _functions(options)
    random.Random(SEED).shuffle(found)
    return found


def drawn(of: Sequence[Question], count: int, zipf: float, seed: int = SEED) -> list[RecordedRun]:
    """So many requests, each a run of one call.

    Args:
        of: the requests, of which the first is asked most often.
        count: how many are drawn.
        zipf: the exponent with which a request becomes rarer by its rank; at 0 none is asked
            twice.
        seed: of the draws.
    """
    rng = random.Random(seed)
    if not zipf:
        chosen = rng.sample(range(len(of)), count)
    else:
        weights = [1 / (rank + 1) ** zipf for rank in range(len(of))]
        chosen = rng.choices(range(len(of)), weights, k=count)
    return [_run(number, place, of[place]) for number, place in enumerate(chosen)]


def first_asked(runs: Sequence[RecordedRun]) -> Counter[str]:
    """The requests, by cluster, that were not asked before in the same words: what a client with a
    dictionary of answers has to send.
    """
    asked: set[str] = set()
    counts: Counter[str] = Counter()
    for run in runs:
        said = [run.messages[:-1], run.tools, dict(run.settings)]
        request = json.dumps(said, sort_keys=True)
        counts[run.cluster] += request not in asked
        asked.add(request)
    return counts


def repeated_share(runs: Sequence[RecordedRun]) -> float:
    """The share of requests that were asked before in the same words: what a dictionary saves."""
    return 1 - first_asked(runs).total() / len(runs)


def _run(number: int, place: int, question: Question) -> RecordedRun:
    system = {"role": "system", "content": question.instructions}
    messages = (system, {"role": "user", "content": question.text}, question.answer)
    turns = messages if question.instructions else messages[1:]
    name = f"{question.corpus}-{place}-{number}"
    cluster = f"{question.corpus}-{place}"
    return RecordedRun(name, cluster, turns, question.tools, question.settings)


def _intents(corpus: str, rows: Sequence[tuple[str, str]]) -> list[Question]:
    labels = sorted({label for _, label in rows})
    schema = {
        "type": "object",
        "properties": {"intent": {"type": "string", "enum": labels}},
        "required": ["intent"],
        "additionalProperties": False,
    }
    form = {
        "type": "json_schema",
        "json_schema": {"name": corpus, "strict": True, "schema": schema},
    }
    settings = {"temperature": 0.0, "response_format": form}
    return [
        Question(corpus, INSTRUCTIONS, text, _intent(label), (), settings) for text, label in rows
    ]


def _intent(label: str) -> Json:
    return {"role": "assistant", "content": json.dumps({"intent": label})}


def _banking(options: Options) -> list[tuple[str, str]]:
    train, test = banking77(options, "train"), banking77(options, "test")
    if train is None or test is None:
        return _made("card account loan password address limit fee branch refund statement")
    return [(row.text, row.label) for row in (*train, *test)]


def _clinc(options: Options) -> list[tuple[str, str]]:
    folder = options.folder(CLINC150)
    if folder is None:
        return _made("alarm weather music timer light door heating radio recipe calendar")
    data = json.loads((folder / "data_full.json").read_text())
    return [(text, intent) for items in data.values() for text, intent in items]


def _made(words: str) -> list[tuple[str, str]]:
    """Generated requests of ten intents."""
    forms = ("what about my {}", "please change the {}", "my {} is wrong", "tell me of the {}")
    ends = ("", " please", " today", " now", ", thanks", " at home")
    return [
        (form.format(word) + end, word) for word in words.split() for form in forms for end in ends
    ]


def _functions(options: Options) -> list[Question]:
    """BFCL's requests. The data set has no answers, so each is answered by a call of its first
    function with its own words: of two requests only equal ones have the same answer.
    """
    folder = options.folder(BFCL)
    if folder is None:
        return []
    path: Path = next(folder.glob("*.jsonl"))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [each for row in rows if (each := _function_request(row)) is not None]


def _function_request(row: Json) -> Question | None:
    turns = row["question"][0]
    if turns[-1]["role"] != "user" or len(turns) > 2:
        return None
    tools: tuple[Json, ...] = tuple(
        {"type": "function", "function": {**tool, "name": tool["name"].replace(".", "_")}}
        for tool in row["function"]
    )
    text = turns[-1]["content"]
    called = {
        "name": tools[0]["function"]["name"],
        "arguments": json.dumps({"request": text}, ensure_ascii=False),
    }
    call = {"id": f"call_{row['id']}", "type": "function", "function": called}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    return Question(BFCL, system, text, answer, tools, {"temperature": 0.0})
