"""`python -m penstock.models`: the model factory's command line."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.models import default
from penstock.models.arguments import parser
from penstock.models.decoder import build_decoder
from penstock.models.distil import distil
from penstock.models.head import train_head
from penstock.models.model_folder import ExportOptions, from_hugging_face, from_onnx
from penstock.models.quantize import Recipe
from penstock.models.quantize_folder import QualityFloors, quantize_folder
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, read_card
from penstock.onnx.encoder import TextModel
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


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
            arguments.home / "models",
            lambda text: progress.update(task, description=text),
            arguments.least_cosine,
        )
    figures = read_card(folder).figures
    console.print(
        f"model: {default.NAME} made in {time.monotonic() - began:.0f} s: "
        f"{figures['size_ratio']:.2f} times smaller, "
        f"cosine to the original {figures['cosine_mean']:.4f}, in {folder}"
    )


def _figures(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    """What the command's work gave, by name of figure."""
    if arguments.command == "evaluate":
        step("comparing")
        judge = _judge(arguments, {})
        return judge.figures(
            TextModel.load(arguments.original), TextModel.load(arguments.quantised)
        )
    if arguments.target.exists():
        raise BadModel(f"{arguments.target}: is already there; name a new version")
    return COMMANDS[arguments.command](arguments, step)


def _export(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    labels = tuple(label.strip() for label in arguments.labels.split(",") if label.strip())
    wanted = ExportOptions(
        arguments.task,
        arguments.pooling,
        arguments.max_tokens,
        arguments.licence,
        arguments.tokenizer,
        labels,
    )
    if arguments.source.is_dir():
        return from_hugging_face(arguments.source, arguments.target, wanted, step).figures
    step("checking the file")
    return from_onnx(arguments.source, arguments.target, wanted).figures


def _quantize(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    reduce = {"auto": None, "on": True, "off": False}[arguments.reduce_range]
    recipe = Recipe(arguments.kind, not arguments.per_tensor, not arguments.asymmetric, reduce)
    asked = {"cosine_mean": arguments.floor, "accuracy_kept": arguments.floor_accuracy}
    asked |= {"agreement": arguments.floor_agreement, "spearman": arguments.floor_spearman}
    floors = {name: floor for name, floor in asked.items() if floor is not None}
    if arguments.labelled is None and floors.keys() & {"accuracy_kept", "agreement"}:
        raise BadModel(
            "a floor on accuracy or agreement needs labelled texts; name them with --labelled"
        )
    return quantize_folder(
        arguments.source, arguments.target, recipe, _judge(arguments, floors), step
    ).figures


def _train_head(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    train, test = _labelled(arguments.train), _labelled(arguments.test)
    step("training the head")
    name = arguments.target.resolve().parent.name
    return {"held_out_accuracy": train_head(arguments.source, arguments.target, name, train, test)}


def _decoder(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    return build_decoder(
        arguments.source, arguments.target, arguments.precision, arguments.licence, step
    ).figures


def _distil(arguments: argparse.Namespace, step: Callable[[str], None]) -> dict[str, float]:
    source = default.weights_folder() if str(arguments.source) == "default" else arguments.source
    keep = _numbers(arguments.layers)
    texts = _lines(arguments.texts)
    return {
        "cosine_to_teacher": distil(source, arguments.target, keep, texts, arguments.epochs, step)
    }


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadModel(f"layers {text!r} are not numbers separated by commas") from None


COMMANDS: dict[str, Callable[[argparse.Namespace, Callable[[str], None]], dict[str, float]]] = {
    "export": _export,
    "quantize": _quantize,
    "train-head": _train_head,
    "decoder": _decoder,
    "distil": _distil,
}


def _judge(arguments: argparse.Namespace, floors: dict[str, float]) -> QualityFloors:
    texts = _lines(arguments.texts) if arguments.texts else list(SAMPLE_TEXTS)
    return QualityFloors(
        texts, floors, _labelled(arguments.labelled) if arguments.labelled else ((), ())
    )


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
        console.print(
            "\n".join(f"{name:28} {value:.5g}" for name, value in figures.items()), highlight=False
        )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
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
