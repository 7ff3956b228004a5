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

from penstock.models import chat, default
from penstock.models.arguments import parser
from penstock.models.decoder import build_decoder
from penstock.models.distil import distil
from penstock.models.gguf_folder import AnswerDefaults, from_gguf
from penstock.models.head import train_head
from penstock.models.model_folder import ExportOptions, from_hugging_face, from_onnx
from penstock.models.quality_floors import QualityFloors
from penstock.models.quantize import Recipe
from penstock.models.quantize_folder import quantize_folder
from penstock.models.samples import SAMPLE_TEXTS
from penstock.onnx.card import BadModel, read_card
from penstock.onnx.encoder import TextModel
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Figures = dict[str, float]
ShowStep = Callable[[str], None]
"""Shows what is being done now."""
REDUCE_RANGE = {"auto": None, "on": True, "off": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 where a model or a file cannot be used."""
    arguments = parser().parse_args(argv)
    console = Console()
    try:
        if arguments.command == "default":
            _build_default(arguments, console)
        elif arguments.command == "chat":
            _build_chat(arguments, console)
        elif arguments.command == "show":
            _show(arguments, console)
        else:
            _run(arguments, console)
    except BadModel as error:
        return _refuse(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}; nothing is published")
    return 0


def _refuse(reason: str) -> int:
    print(f"penstock.models: {reason}", file=sys.stderr)
    return 2


def _build_default(arguments: argparse.Namespace, console: Console) -> None:
    """Build the default model, unless it is there; a card of an earlier version is renewed."""
    target = arguments.home / "models" / default.NAME / default.VERSION
    if (target / "card.json").exists():
        renewed = default.renew_card(target)
        console.print(
            f"model: {default.NAME} is already in {target}{'; its card is renewed' * renewed}"
        )
        return
    began_s = time.monotonic()
    with _progress(console) as progress:
        show_step = _step_shower(progress)
        folder = default.build(arguments.home / "models", show_step, arguments.min_cosine)
    figures = read_card(folder).figures
    console.print(
        f"model: {default.NAME} made in {time.monotonic() - began_s:.0f} s: "
        f"{figures['size_ratio']:.2f} times smaller, "
        f"cosine to the original {figures['cosine_mean']:.4f}, in {folder}"
    )


def _build_chat(arguments: argparse.Namespace, console: Console) -> None:
    """Build the chat model, unless it is there."""
    models = arguments.home / "models"
    folder = models / chat.NAME / chat.VERSION
    if (folder / "card.json").exists():
        console.print(f"model: {chat.NAME} is already in {folder}")
        return
    with _progress(console) as progress:
        figures = chat.build(models, _step_shower(progress)).figures
    cosine = figures["logit_cosine_min"]
    console.print(f"model: {chat.NAME} made: logits' cosine to the file {cosine:.5f}, in {folder}")


def _show(arguments: argparse.Namespace, console: Console) -> None:
    """Check a model folder and print its card."""
    folder = arguments.home / "models" / arguments.name / default.VERSION
    read_card(folder)
    console.print((folder / "card.md").read_text(), highlight=False)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    """Run a command that gives figures, and print them."""
    with _progress(Console(stderr=True)) as progress:
        figures = _figures(arguments, _step_shower(progress))
    if arguments.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        lines = [f"{name:28} {value:.5g}" for name, value in figures.items()]
        console.print("\n".join(lines), highlight=False)


def _progress(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("model: {task.description}"), TimeElapsedColumn())
    is_shown = console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not is_shown)


def _step_shower(progress: Progress) -> ShowStep:
    task = progress.add_task("starting", total=None)
    return lambda text: progress.update(task, description=text)


def _figures(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    """What the command measured, by name."""
    if arguments.command != "evaluate" and arguments.target.exists():
        raise BadModel(f"{arguments.target}: is already there; name a new version")
    return COMMANDS[arguments.command](arguments, show_step)


def _evaluate(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    show_step("comparing")
    original, quantised = TextModel.load(arguments.original), TextModel.load(arguments.quantised)
    return _quality_floors(arguments, {}).measure(original, quantised)


def _export(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    labels = tuple(label.strip() for label in arguments.labels.split(",") if label.strip())
    options = ExportOptions(
        arguments.task,
        arguments.pooling,
        arguments.max_tokens,
        arguments.licence,
        arguments.tokenizer,
        labels,
    )
    if arguments.source.is_dir():
        return from_hugging_face(arguments.source, arguments.target, options, show_step).figures
    show_step("checking the file")
    return from_onnx(arguments.source, arguments.target, options).figures


def _quantize(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    recipe = Recipe(
        arguments.kind,
        per_channel=not arguments.per_tensor,
        symmetric=not arguments.asymmetric,
        reduce_range=REDUCE_RANGE[arguments.reduce_range],
    )
    options = {
        "cosine_mean": arguments.floor,
        "accuracy_kept": arguments.floor_accuracy,
        "agreement": arguments.floor_agreement,
        "spearman": arguments.floor_spearman,
    }
    floors = {name: floor for name, floor in options.items() if floor is not None}
    if arguments.labelled is None and floors.keys() & {"accuracy_kept", "agreement"}:
        raise BadModel(
            "a floor on accuracy or agreement needs labelled texts; name them with --labelled"
        )
    quality = _quality_floors(arguments, floors)
    return quantize_folder(arguments.source, arguments.target, recipe, quality, show_step).figures


def _train_head(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    train, test = _read_labelled(arguments.train), _read_labelled(arguments.test)
    show_step("training the head")
    name = arguments.target.resolve().parent.name
    return {"held_out_accuracy": train_head(arguments.source, arguments.target, name, train, test)}


def _decoder(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    return build_decoder(
        arguments.source, arguments.target, arguments.precision, arguments.licence, show_step
    ).figures


def _import_gguf(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    if arguments.max_tokens < 0 or not arguments.repetition_penalty > 0:
        raise BadModel("--max-tokens must be at least 0 and --repetition-penalty above 0")
    defaults = AnswerDefaults(arguments.max_tokens, arguments.repetition_penalty)
    return from_gguf(
        arguments.source, arguments.target, defaults, arguments.licence, show_step
    ).figures


def _distil(arguments: argparse.Namespace, show_step: ShowStep) -> Figures:
    source = default.weights_folder() if str(arguments.source) == "default" else arguments.source
    layers = _parse_layers(arguments.layers)
    texts = _read_lines(arguments.texts)
    cosine = distil(source, arguments.target, layers, texts, arguments.epochs, show_step)
    return {"cosine_to_teacher": cosine}


COMMANDS: dict[str, Callable[[argparse.Namespace, ShowStep], Figures]] = {
    "evaluate": _evaluate,
    "export": _export,
    "quantize": _quantize,
    "train-head": _train_head,
    "decoder": _decoder,
    "import-gguf": _import_gguf,
    "distil": _distil,
}


def _parse_layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadModel(f"--layers {text!r} are not numbers separated by commas") from None


def _quality_floors(arguments: argparse.Namespace, floors: dict[str, float]) -> QualityFloors:
    texts = _read_lines(arguments.texts) if arguments.texts else list(SAMPLE_TEXTS)
    labelled = _read_labelled(arguments.labelled) if arguments.labelled else ((), ())
    return QualityFloors(texts, floors, labelled)


def _read_lines(path: Path) -> list[str]:
    """The texts of a file, one a line."""
    texts = [line for line in _read(path).splitlines() if line.strip()]
    if not texts:
        raise BadModel(f"{path}: holds no text")
    return texts


def _read_labelled(path: Path) -> tuple[list[str], list[str]]:
    """The texts and the categories of a CSV file."""
    rows = list(csv.DictReader(io.StringIO(_read(path), newline="")))
    if not rows or not {"text", "category"} <= rows[0].keys():
        raise BadModel(f"{path}: needs rows with the columns text and category")
    return [row["text"] for row in rows], [row["category"] for row in rows]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModel(f"{path}: cannot be read ({type(error).__name__})") from None


if __name__ == "__main__":
    sys.exit(main())
