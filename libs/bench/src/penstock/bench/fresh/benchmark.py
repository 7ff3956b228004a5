"""The first ten minutes: both documented commands in fresh clones, and the chat model that ships.

`make fresh` runs the commands, each in a new clone of the committed tree, and appends to
`docs/benchmarks/fresh.jsonl`; here that log is summed: the last run under each condition, and for
the times the last two demos under each condition that slows nothing down. The chat model is
measured now: through the whole path, in turns with onnxruntime-genai asked directly with the same
folder. So are several starts of all that `make up` runs (`ready_s`, their median), and the
documented `grpcurl` lines are run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock.bench.documented_calls.benchmark import count_failed, run_all_lines
from penstock.bench.fresh.__main__ import LOG
from penstock.bench.fresh.chat import QUESTIONS, Amount, Comparison, chat_ratios, compare
from penstock.bench.fresh.conditions import CONDITIONS, TIMED_DEMOS, undisturbed
from penstock.bench.fresh.log import Run, last_demos, latest
from penstock.bench.harness.intervals import bootstrap, medians
from penstock.bench.harness.json_lines import records
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Result, Table
from penstock.onnx.card import parse_card
from penstock.service.default_models import CHAT
from penstock.service.program import loop_factory

NEEDS_MODELS = True
FULL, QUICK = Amount(8, 6, len(QUESTIONS)), Amount(1, 1, 1)
BOUNDS = {
    "demo_ok": Bound(">=", 6),
    "test_ok": Bound(">=", 4),
    "first_demo_s": Bound("<=", 150),
    "demo_s": Bound("<=", 45),
    "download_mb": Bound("<=", 600),
    "chat_tokens_vs_runtime": Bound(">=", 0.9),
    "chat_first_token_vs_runtime": Bound("<=", 1.3),
    "chat_logit_cosine": Bound(">=", 0.999),
    "ready_s": Bound("<=", 6),
    "grpcurl_lines_failed": Bound("<=", 0),
    "torch_imported": Bound("<=", 0),
}
PLAIN = [each.name for each in CONDITIONS if not each.cores and each.disturb is undisturbed]
"""The conditions under which nothing slows a command down."""


def run(options: Options) -> Result:
    """Sum the log and measure."""
    logged = records(LOG, Run)
    runs, timed = latest(logged), last_demos(logged, PLAIN, TIMED_DEMOS)
    home = home_folder()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        amount = QUICK if options.quick else FULL
        chat = runner.run(compare(home, Path(folder), amount))
    cosine = parse_card(home / "models" / CHAT / "1").figures["logit_cosine_min"]
    ready = [{"ready_s": ready_s} for ready_s in chat.ready_s]
    counts = {
        **counted(runs),
        "chat_logit_cosine": cosine,
        "grpcurl_lines_failed": count_failed(run_all_lines(options.quick)),
    }
    figures = counts | demo_times(timed) | chat_ratios(chat.rounds) | medians(ready)
    intervals = bootstrap(timed, demo_times, "demos") | bootstrap(ready, medians, "starts")
    intervals |= bootstrap(chat.rounds, chat_ratios, "rounds")
    context = {"rounds": len(chat.rounds), "data": "four short questions"}
    tables = (_runs_table(runs), _chat_table(chat))
    bounds = {name: bound for name, bound in BOUNDS.items() if name in figures}
    return Result(figures, bounds, context, tables, intervals=intervals, exact=frozenset(counts))


def counted(runs: Sequence[Run]) -> dict[str, float]:
    """What the last runs under each condition count, and the megabytes of the last download."""
    demos = [run for run in runs if run.command == "demo"]
    figures: dict[str, float] = {
        "demo_ok": sum(run.ok for run in demos),
        "test_ok": sum(run.ok for run in runs if run.command == "test"),
        "torch_imported": sum(run.torch_imports for run in demos),
    }
    downloads = [run.megabytes for run in runs if run.command == "download" and run.ok]
    return figures | ({"download_mb": downloads[-1]} if downloads else {})


def demo_times(demos: Sequence[Run]) -> dict[str, float]:
    """Median seconds of demos, with and without what only the first one does; nothing of none."""
    if not demos:
        return {}
    return medians([{"first_demo_s": run.seconds, "demo_s": run.command_s} for run in demos])


def _runs_table(runs: Sequence[Run]) -> Table:
    columns = ("command", "condition", "ok", "s in all", "s of the command", "commit", "Python")
    rows = tuple(
        (
            run.command,
            run.condition,
            "yes" if run.ok else "no",
            run.seconds,
            run.command_s,
            run.commit,
            run.python,
        )
        for run in runs
    )
    return Table("Fresh clones", columns, rows)


def _chat_table(chat: Comparison) -> Table:
    pairs = [pair for each in chat.rounds for pair in each]
    path, direct = zip(*pairs, strict=True)
    sides = {"whole path": path, "onnxruntime-genai, directly": direct}
    rows = tuple(
        (
            name,
            statistics.median(answer.first_s for answer in answers) * 1e3,
            statistics.median(answer.tokens_per_s for answer in answers),
        )
        for name, answers in sides.items()
    )
    return Table("Chat", ("", "first token ms", "tokens a second"), rows)
