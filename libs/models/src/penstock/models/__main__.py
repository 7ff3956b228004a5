"""`python -m penstock.models`: the model factory's command line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from penstock.models import default
from penstock.onnx.card import BadModel, read_card
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


def main() -> int:
    arguments = _parser().parse_args()
    console = Console()
    try:
        if arguments.command == "default":
            _default(arguments, console)
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
