"""The commands and options of `python -m penstock.models`; `__main__` carries them out."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from penstock.models import chat, default
from penstock.models.gguf_file import MATRIX_TYPES
from penstock.models.gguf_folder import AnswerDefaults
from penstock.models.model_folder import ADAPTERS

FLOORS = {
    "cosine": "lowest mean cosine to the original's embeddings",
    "accuracy": "lowest accuracy divided by the original's, on labelled texts (needs --labelled)",
    "agreement": "lowest share of labels equal to the original's (needs --labelled)",
    "spearman": "lowest rank correlation of all pairs' similarities with the original's",
}
NEW_FOLDER = "folder to write, such as models/NAME/1"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    top = argparse.ArgumentParser(
        prog="penstock.models", description="Export, quantise and check models."
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_default(commands.add_parser("default", help=f"make {default.NAME}, if it is not there"))
    _add_home(commands.add_parser("chat", help=f"make {chat.NAME}, if it is not there"))
    _add_show(commands.add_parser("show", help="check a model folder and print its card"))
    with_figures = [
        _add_export(
            commands.add_parser(
                "export", help="a model folder from a Hugging Face directory or an ONNX file"
            )
        ),
        _add_decoder(
            commands.add_parser(
                "decoder", help="a folder for `generate` from a Hugging Face decoder, int4 or int8"
            )
        ),
        _add_import_gguf(
            commands.add_parser(
                "import-gguf", help="a folder for `generate` from a GGUF file, in its own precision"
            )
        ),
        _add_quantize(
            commands.add_parser(
                "quantize", help="INT8 from a floating-point model folder, refused below a floor"
            )
        ),
        _add_evaluate(
            commands.add_parser(
                "evaluate", help="compare a quantised model folder with its original"
            )
        ),
        _add_train_head(
            commands.add_parser(
                "train-head", help="put a classifier into a model's graph: classify in one run"
            )
        ),
        _add_distil(
            commands.add_parser(
                "distil",
                help="a Hugging Face directory with fewer layers, taught to embed like its teacher",
            )
        ),
    ]
    for command in with_figures:
        command.add_argument(
            "--json", action="store_true", help="print one JSON object on standard output"
        )
    return top


def _add_home(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("PENSTOCK_HOME", ".penstock")),
        help="folder that holds models/; default: PENSTOCK_HOME, else .penstock",
    )


def _add_default(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--min-cosine",
        "--least-cosine",
        type=float,
        default=default.MIN_COSINE,
        help="mean cosine to the original below which nothing is published",
    )
    _add_home(command)


def _add_show(command: argparse.ArgumentParser) -> None:
    _add_home(command)
    command.add_argument("name", nargs="?", default=default.NAME, help="the model's name")


def _add_export(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "source",
        type=Path,
        help="directory with config.json, weights and tokenizer.json, or a .onnx file",
    )
    command.add_argument("target", type=Path, help=NEW_FOLDER)
    command.add_argument(
        "--task",
        choices=tuple(ADAPTERS),
        default="embed",
        help="encoder for embeddings, sequence classification, scoring of two texts, or tensors "
        "only (ONNX files)",
    )
    command.add_argument(
        "--pooling",
        choices=("mean", "cls"),
        default="",
        help="how token vectors become one; default: what the directory says, else mean",
    )
    command.add_argument(
        "--max-tokens",
        type=int,
        default=0,
        help="longest input in tokens; default: what the directory says",
    )
    command.add_argument(
        "--labels",
        default="",
        help="names of the classes, separated by commas; default: the directory's",
    )
    command.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json for an ONNX file; default: the one beside it"
    )
    command.add_argument("--licence", default="", help="the model's licence, for the card")
    return command


def _add_decoder(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("source", type=Path, help="Hugging Face directory of a decoder")
    command.add_argument("target", type=Path, help=NEW_FOLDER)
    command.add_argument(
        "--precision", choices=("int4", "int8", "fp32"), default="int4", help="of the weights"
    )
    command.add_argument("--licence", default="", help="the model's licence, for the card")
    return command


def _add_import_gguf(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    defaults = AnswerDefaults()
    command.add_argument(
        "source",
        type=Path,
        help=f"GGUF file of the llama architecture, matrices in {', '.join(MATRIX_TYPES)}",
    )
    command.add_argument("target", type=Path, help=NEW_FOLDER)
    command.add_argument(
        "--max-tokens",
        type=int,
        default=defaults.max_tokens,
        help="tokens of an answer where the caller names no number; 0: as many as there is room",
    )
    command.add_argument(
        "--repetition-penalty",
        type=float,
        default=defaults.repetition_penalty,
        help="how much less probable a token becomes by standing in the conversation; 1: not",
    )
    command.add_argument("--licence", default="", help="for the card; default: what the file says")
    return command


def _add_quantize(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "source", type=Path, help="model folder with a card, such as models/NAME-fp32/1"
    )
    command.add_argument("target", type=Path, help="folder to write, such as models/NAME/2")
    command.add_argument(
        "--kind",
        choices=("dynamic", "static", "fp16"),
        default="dynamic",
        help="dynamic: 8 bits, activations scaled while running; static: 8 bits, ranges from "
        "--texts, which leaves fused attention and embedding tables in floating point and so "
        "saves less; fp16: for GPUs",
    )
    command.add_argument(
        "--per-tensor", action="store_true", help="one scale for each weight, not for each channel"
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
    _add_texts(command)
    return command


def _add_evaluate(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("original", type=Path, help="model folder in floating point")
    command.add_argument("quantised", type=Path, help="model folder to compare with it")
    _add_texts(command)
    return command


def _add_texts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--texts",
        type=Path,
        help="file of texts to calibrate with and to compare by, one a line; default: built-in",
    )
    command.add_argument(
        "--labelled",
        type=Path,
        help="CSV with columns text and category, to measure accuracy and agreement as well",
    )


def _add_train_head(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("source", type=Path, help="model folder that gives embeddings")
    command.add_argument("target", type=Path, help="folder to write, such as models/intents/1")
    command.add_argument(
        "--train", type=Path, required=True, help="CSV with columns text and category"
    )
    command.add_argument(
        "--test", type=Path, required=True, help="held-out CSV of the same columns"
    )
    return command


def _add_distil(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument(
        "source",
        type=Path,
        help="Hugging Face directory of the teacher; `default` means the default model's",
    )
    command.add_argument(
        "target", type=Path, help="directory to write; `export` makes a model folder of it"
    )
    command.add_argument(
        "--layers", default="0,2,4", help="layers to keep, counted from 0, separated by commas"
    )
    command.add_argument(
        "--texts", type=Path, required=True, help="file of texts to teach with, one a line"
    )
    command.add_argument("--epochs", type=int, default=2, help="passes over the texts")
    return command
