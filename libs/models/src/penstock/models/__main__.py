"""`python -m penstock.models`: the model factory's command line."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.models import default
from penstock.models.evaluate import compare
from penstock.models.floor import quantize_folder
from penstock.models.head import train_head
from penstock.models.samples import TEXTS
from penstock.onnx.card import BadModel, read_card
from penstock.onnx.encoder import TextModel
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock.models", description="Export, quantise and check models.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("default", help=f"make the default model, {default.NAME}, if it is not there")
    build.add_argument(
        "--least-cosine", type=float, default=default.LEAST_COSINE, help="floor below which nothing is published"
    )
    for command in (build, commands.add_parser("show", help="check a model folder and print its card")):
        command.add_argument("--home", type=Path, default=Path(os.environ.get("PENSTOCK_HOME", ".penstock")))
    quantise = commands.add_parser("quantize", help="INT8 from a floating-point model folder, refused below a floor")
    quantise.add_argument("source", type=Path, help="model folder with a card, such as models/NAME-fp32/1")
    quantise.add_argument("target", type=Path, help="folder to write, such as models/NAME/2")
    quantise.add_argument(
        "--kind",
        choices=("dynamic", "static"),
        default="dynamic",
        help="activation ranges; static leaves fused attention and embedding tables in floating point, so it saves less",
    )
    quantise.add_argument("--floor", type=float, default=default.LEAST_COSINE, help="least mean cosine to the original")
    quantise.add_argument("--texts", type=Path, help="calibration and comparison texts, one a line; default: ours")
    judged = commands.add_parser("evaluate", help="compare a quantised model folder with its original")
    judged.add_argument("original", type=Path)
    judged.add_argument("quantised", type=Path)
    judged.add_argument("--texts", type=Path, help="texts, one a line; default: ours")
    head = commands.add_parser("train-head", help="put a classifier into a model's graph: classify in one run")
    head.add_argument("source", type=Path, help="model folder that gives embeddings")
    head.add_argument("target", type=Path, help="folder to write, such as models/intents/1")
    head.add_argument("--train", type=Path, required=True, help="CSV with columns text and category")
    head.add_argument("--test", type=Path, required=True, help="held-out CSV of the same columns")
    for command in (quantise, judged, head):
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    commands.choices["show"].add_argument("name", nargs="?", default=default.NAME)
    return parser


def _default(arguments: argparse.Namespace, console: Console) -> None:
    target = arguments.home / "models" / default.NAME / default.VERSION
    if (target / "card.json").exists():
        console.print(f"model: {default.NAME} is already in {target}")
        return
    began = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("model: {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        folder = default.build(
            arguments.home / "models", lambda text: progress.update(task, description=text), arguments.least_cosine
        )
    figures = read_card(folder).figures
    console.print(
        f"model: {default.NAME} made in {time.monotonic() - began:.0f} s: {figures['size_ratio']:.2f} times smaller, "
        f"cosine to the original {figures['cosine_mean']:.4f}, in {folder}"
    )


def _figures(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    if arguments.command == "train-head":
        if arguments.target.exists():
            raise BadModel(f"{arguments.target}: is already there; name a new version")
        train, test = _labelled(arguments.train), _labelled(arguments.test)
        name = arguments.target.resolve().parent.name
        step("training the head")
        return {"held_out_accuracy": train_head(arguments.source, arguments.target, name, train, test)}
    texts = _lines(arguments.texts) if arguments.texts else list(TEXTS)
    if arguments.command == "evaluate":
        step("comparing")
        return compare(TextModel.load(arguments.original), TextModel.load(arguments.quantised), texts)
    if arguments.target.exists():
        raise BadModel(f"{arguments.target}: is already there; name a new version")
    target = arguments.target.resolve()
    return quantize_folder(arguments.source, target, arguments.kind, texts, arguments.floor, step).figures


def _lines(path: Path) -> list[str]:
    texts = [line for line in _read(path).splitlines() if line.strip()]
    if not texts:
        raise BadModel(f"{path}: holds no text")
    return texts


def _labelled(path: Path) -> tuple[list[str], list[str]]:
    rows = list(csv.DictReader(io.StringIO(_read(path), newline="")))
    if not rows or not {"text", "category"} <= rows[0].keys():
        raise BadModel(f"{path}: needs rows with the columns text and category")
    return [row["text"] for row in rows], [row["category"] for row in rows]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModel(f"{path}: cannot be read ({type(error).__name__})") from None


def _work(arguments: argparse.Namespace, console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("model: {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        figures = _figures(arguments, lambda text: progress.update(task, description=text))
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        console.print("\n".join(f"{name:28} {value:.5g}" for name, value in figures.items()), highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        if arguments.command == "default":
            _default(arguments, console)
        elif arguments.command != "show":
            _work(arguments, console)
        else:
            folder = arguments.home / "models" / arguments.name / default.VERSION
            read_card(folder)
            console.print((folder / "card.md").read_text(), highlight=False)
    except BadModel as error:
        print(f"penstock.models: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
