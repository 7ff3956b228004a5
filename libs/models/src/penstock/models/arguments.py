"""The command line of the factory: what may be typed. What it does stands in `__main__`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from penstock.models import default

FLOORS = {
    "cosine": "least mean cosine to the original",
    "accuracy": "least accuracy ÷ the original's, on labelled texts (needs --labelled)",
    "agreement": "least share of equal labels (needs --labelled)",
    "spearman": "least rank correlation of all pairs' similarities",
}


def parser() -> argparse.ArgumentParser:
    """Every command and option of `python -m penstock.models`."""
    top = argparse.ArgumentParser(
        prog="penstock.models", description="Export, quantise and check models."
    )
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "default", help=f"make the default model, {default.NAME}, if it is not there"
    )
    build.add_argument(
        "--least-cosine",
        type=float,
        default=default.MIN_COSINE,
        help="floor below which nothing is published",
    )
    show = commands.add_parser("show", help="check a model folder and print its card")
    for command in (build, show):
        command.add_argument(
            "--home", type=Path, default=Path(os.environ.get("PENSTOCK_HOME", ".penstock"))
        )
    show.add_argument("name", nargs="?", default=default.NAME)
    _export(
        commands.add_parser(
            "export", help="a model folder from a Hugging Face directory or an ONNX file"
        )
    )
    _decoder(
        commands.add_parser(
            "decoder", help="a folder for `generate` from a Hugging Face decoder, int4 or int8"
        )
    )
    _quantize(
        commands.add_parser(
            "quantize", help="INT8 from a floating-point model folder, refused below a floor"
        )
    )
    judged = commands.add_parser(
        "evaluate", help="compare a quantised model folder with its original"
    )
    judged.add_argument("original", type=Path)
    judged.add_argument("quantised", type=Path)
    _texts(judged)
    head = commands.add_parser(
        "train-head", help="put a classifier into a model's graph: classify in one run"
    )
    head.add_argument("source", type=Path, help="model folder that gives embeddings")
    head.add_argument("target", type=Path, help="folder to write, such as models/intents/1")
    head.add_argument(
        "--train", type=Path, required=True, help="CSV with columns text and category"
    )
    head.add_argument("--test", type=Path, required=True, help="held-out CSV of the same columns")
    student = commands.add_parser(
        "distil",
        help="a Hugging Face directory with fewer layers, taught to embed like the original",
    )
    student.add_argument(
        "source",
        type=Path,
        help="Hugging Face directory of the teacher; `default` means the default model's",
    )
    student.add_argument(
        "target", type=Path, help="directory to write; `export` makes a model folder of it"
    )
    student.add_argument("--layers", default="0,2,4", help="layers to keep, counted from 0")
    student.add_argument(
        "--texts", type=Path, required=True, help="texts to teach with, one a line"
    )
    student.add_argument("--epochs", type=int, default=2)
    for name in ("export", "decoder", "distil", "quantize", "evaluate", "train-head"):
        commands.choices[name].add_argument(
            "--json", action="store_true", help="print one JSON object on standard output"
        )
    return top


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        type=Path,
        help="directory with config.json, weights and tokenizer.json, or a .onnx file",
    )
    command.add_argument("target", type=Path, help="folder to write, such as models/NAME/1")
    command.add_argument(
        "--task",
        choices=("embed", "classify", "pair", "infer"),
        default="embed",
        help="encoder for embeddings, sequence classification, scoring of two texts, or tensors "
        "only (ONNX files)",
    )
    command.add_argument(
        "--pooling",
        choices=("mean", "cls"),
        default="",
        help="default: what the directory says, else mean",
    )
    command.add_argument(
        "--max-tokens", type=int, default=0, help="longest input; default: what the directory says"
    )
    command.add_argument(
        "--labels",
        default="",
        help="names of the classes, separated by commas; default: the directory's",
    )
    command.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json for an ONNX file; default: the one beside it"
    )
    command.add_argument("--licence", default="", help="for the card")


def _decoder(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", type=Path, help="Hugging Face directory of a decoder")
    command.add_argument("target", type=Path, help="folder to write, such as models/NAME/1")
    command.add_argument(
        "--precision", choices=("int4", "int8", "fp32"), default="int4", help="of the weights"
    )
    command.add_argument("--licence", default="", help="for the card")


def _quantize(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source", type=Path, help="model folder with a card, such as models/NAME-fp32/1"
    )
    command.add_argument("target", type=Path, help="folder to write, such as models/NAME/2")
    command.add_argument(
        "--kind",
        choices=("dynamic", "static", "fp16"),
        default="dynamic",
        help="dynamic: 8 bits, activations scaled while running; static: 8 bits, ranges from "
        "--texts, which leaves fused attention and "
        "embedding tables in floating point and so saves less; fp16: for GPUs",
    )
    command.add_argument(
        "--per-tensor",
        action="store_true",
        help="one scale for each weight, not one for each channel",
    )
    command.add_argument(
        "--asymmetric", action="store_true", help="weights with a zero point (8 bits, unsigned)"
    )
    command.add_argument(
        "--reduce-range",
        choices=("auto", "on", "off"),
        default="auto",
        help="7-bit weights, which do not saturate; auto: what this CPU needs",
    )
    command.add_argument("--floor", type=float, default=default.MIN_COSINE, help=FLOORS["cosine"])
    for name in ("accuracy", "agreement", "spearman"):
        command.add_argument(f"--floor-{name}", type=float, help=FLOORS[name])
    _texts(command)


def _texts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--texts",
        type=Path,
        help="texts to calibrate with and to compare by, one a line; default: ours",
    )
    command.add_argument(
        "--labelled",
        type=Path,
        help="CSV with columns text and category: accuracy and agreement as well",
    )
