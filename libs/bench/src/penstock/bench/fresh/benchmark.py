"""The first ten minutes: both documented commands in fresh clones, and the chat model that ships.

`make fresh` runs the commands, each in a new clone of the committed tree, and appends to
`docs/benchmarks/fresh.jsonl`; here that log is summed, the last run under each condition. The chat
model is measured now: through the whole path, in turns with onnxruntime-genai asked directly with
the same folder. The documented `grpcurl` lines are run now as well.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from penstock.bench.documented_calls.benchmark import count_failed, run_all_lines
from penstock.bench.fresh.__main__ import LOG
from penstock.bench.fresh.chat import Comparison, compare
from penstock.bench.fresh.conditions import CONDITIONS, undisturbed
from penstock.bench.fresh.log import Run, latest
from penstock.bench.harness.json_lines import records
from penstock.bench.harness.options import Options
from penstock.bench.harness.processes import home_folder
from penstock.bench.harness.report import Bound, Result, Table
from penstock.onnx.card import parse_card
from penstock.service.default_models import CHAT
from penstock.service.program import loop_factory

NEEDS_MODELS = True
ROUNDS = 8
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
    runs = latest(records(LOG, Run))
    home = home_folder()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        rounds = 1 if options.quick else ROUNDS
        chat = runner.run(compare(home, Path(folder), rounds))
    cosine = parse_card(home / "models" / CHAT / "1").figures["logit_cosine_min"]
    figures = log_figures(runs) | {
        "chat_tokens_vs_runtime": chat.tokens_ratio,
        "chat_first_token_vs_runtime": chat.first_token_ratio,
        "chat_logit_cosine": cosine,
        "ready_s": chat.ready_s,
        "grpcurl_lines_failed": count_failed(run_all_lines(options.quick)),
    }
    context = {"answers_a_side": len(chat.path), "data": "four short questions"}
    return Result(figures, BOUNDS, context, (_runs_table(runs), _chat_table(chat)))


def log_figures(runs: Sequence[Run]) -> dict[str, float]:
    """What the log's runs say; times are medians over the conditions that slow nothing down."""
    demos = [run for run in runs if run.command == "demo"]
    plain = [run for run in demos if run.ok and run.condition in PLAIN]
    figures: dict[str, float] = {
        "demo_ok": sum(run.ok for run in demos),
        "test_ok": sum(run.ok for run in runs if run.command == "test"),
        "torch_imported": sum(run.torch_imports for run in demos),
    }
    if plain:
        figures["first_demo_s"] = statistics.median(run.seconds for run in plain)
        figures["demo_s"] = statistics.median(run.command_s for run in plain)
    downloads = [run.megabytes for run in runs if run.command == "download" and run.ok]
    return figures | ({"download_mb": downloads[-1]} if downloads else {})


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
    sides = {"whole path": chat.path, "onnxruntime-genai, directly": chat.direct}
    rows = tuple(
        (
            name,
            statistics.median(answer.first_s for answer in answers) * 1e3,
            statistics.median(answer.tokens_per_s for answer in answers),
        )
        for name, answers in sides.items()
    )
    return Table("Chat", ("", "first token ms", "tokens a second"), rows)
