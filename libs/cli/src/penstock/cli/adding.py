"""How a model that a user brings becomes one that Penstock serves: which steps of the model factory
make it, and the file that says which models were added.

Decisions only, and the one file; `commands/models.py` carries the steps out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import yaml
from penstock.service.local_models import ADDED_FILE
from penstock.service.written_encoders import is_written

SourceKind = Literal["gguf", "onnx", "encoder", "decoder"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.gguf")
CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True)
class Options:
    """What the user said about the model; empty values leave it to the source.

    Attributes:
        task: `embed`, `classify`, `pair` or `infer`, for ONNX files and encoders.
        floor: lowest mean cosine between the quantised model and the original.
    """

    task: str = ""
    labels: str = ""
    tokenizer: Path | None = None
    licence: str = ""
    floor: float = 0.985


@dataclass(frozen=True)
class Step:
    """One run of the model factory: its arguments, and whether it needs torch."""

    arguments: tuple[str, ...]
    needs_torch: bool = False


@dataclass(frozen=True)
class Import:
    """The steps that make a model folder, and the folders that a failure has to remove.

    Attributes:
        steps: run in order; the last one measures how good the model is.
        target: the folder that is served.
        by_products: folders made on the way.
    """

    steps: tuple[Step, ...]
    target: Path
    by_products: tuple[Path, ...] = ()


def kind_of(source: Path) -> SourceKind:
    """What the source is.

    Raises:
        click.UsageError: it is no directory with a config.json, no .onnx and no .gguf file.
    """
    if source.is_file() and source.suffix.lower() in (".onnx", ".gguf"):
        return "onnx" if source.suffix.lower() == ".onnx" else "gguf"
    config = source / "config.json"
    if not config.is_file():
        raise click.UsageError(
            f"{source}: is neither a .gguf nor a .onnx file nor a Hugging Face directory with a "
            "config.json"
        )
    architectures = _read_json(config).get("architectures") or [""]
    return "decoder" if str(architectures[0]).endswith("ForCausalLM") else "encoder"


def name_of(source: Path, given: str) -> str:
    """The model's name: the one given, else made of the source's.

    Raises:
        click.UsageError: the name cannot be a folder's.
    """
    name = given or re.sub(r"[^A-Za-z0-9._-]+", "-", source.resolve().stem).strip("-.")
    if not NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} cannot name a model; give letters, digits, dots and dashes with --name"
        )
    return name


def next_version(models: Path, name: str) -> str:
    """One more than the highest version of the model, `1` for its first."""
    folder = models / name
    versions = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return str(max((int(version) for version in versions if version.isdigit()), default=0) + 1)


def plan_import(
    source: Path, kind: SourceKind, name: str, models: Path, options: Options
) -> Import:
    """The steps that make the next version of the model.

    Encoders and ONNX graphs are quantised to INT8 and refused below the floor; a model of tensors
    is taken as it is, since nobody knows texts to judge it by. A GGUF file keeps its precision.
    """
    target = models / name / next_version(models, name)
    licence = ("--licence", options.licence) if options.licence else ()
    if kind == "gguf":
        return Import((Step(("import-gguf", str(source), str(target), *licence)),), target)
    if kind == "decoder":
        step = Step(("decoder", str(source), str(target), "--precision", "int8", *licence), True)
        return Import((step,), target)
    export = _export(source, options) + licence
    needs_torch = kind == "encoder" and not _is_written(source, options)
    if options.task == "infer":
        return Import((Step(("export", str(source), str(target), *export)),), target)
    original = models / f"{name}-fp32" / target.name
    quantise = ("quantize", str(original), str(target), "--floor", str(options.floor))
    steps = (Step(("export", str(source), str(original), *export), needs_torch), Step(quantise))
    return Import(steps, target, (original,))


def _is_written(source: Path, options: Options) -> bool:
    """Whether the factory writes the encoder's graph itself."""
    gives_embeddings = (options.task or _task_of(source)) in ("", "embed")
    return gives_embeddings and is_written(source, _read_json(source / "config.json"))


def _export(source: Path, options: Options) -> tuple[str, ...]:
    task = options.task or _task_of(source)
    pairs = {"--task": task, "--labels": options.labels, "--tokenizer": options.tokenizer or ""}
    return tuple(part for flag, value in pairs.items() if value for part in (flag, str(value)))


def _task_of(source: Path) -> str:
    """The task of a Hugging Face encoder by its architecture; empty for an ONNX file."""
    config = source / "config.json"
    architectures = _read_json(config).get("architectures") if config.is_file() else None
    if architectures and str(architectures[0]).endswith(CLASSIFIER):
        return "classify"
    return ""


def weight_bytes(source: Path) -> int:
    """Bytes of the source's weights."""
    files = [source] if source.is_file() else [f for glob in WEIGHTS for f in source.glob(glob)]
    return sum(file.stat().st_size for file in files)


def memory_problem(needed_bytes: int, available_bytes: int) -> str:
    """Why the model does not fit into memory; empty where it does or nobody knows."""
    if not available_bytes or needed_bytes <= available_bytes:
        return ""
    return (
        f"its weights have {needed_bytes / 1e9:.1f} GB and {available_bytes / 1e9:.1f} GB of "
        "memory are free; bring a smaller or more strongly quantised model"
    )


def available_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory that can be had without swapping; 0 where the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line), 0)


def added_instances(home: Path) -> list[dict[str, Any]]:
    """The entries of the file of added models.

    Raises:
        click.UsageError: the file holds something else.
    """
    path = home / ADDED_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return []
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        raise click.UsageError(f"{path}: cannot be read as YAML; remove it or mend it") from None
    entries = content.get("instances") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise click.UsageError(f"{path}: has no list `instances`; remove it or mend it")
    return entries


def write_added(home: Path, entries: list[dict[str, Any]]) -> None:
    """Write the file of added models in one step, so that no reader sees half of it."""
    path = home / ADDED_FILE
    text = "# Written by `penstock models add` and `remove`; read by `penstock up`.\n"
    text += yaml.safe_dump({"instances": entries}, sort_keys=False)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def with_model(entries: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The entries with one instance of the model, unless one of them names it."""
    if any(name in entry.get("models", []) for entry in entries):
        return entries
    return [*entries, {"models": [name]}]


def without_model(entries: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The entries without the model."""
    rest = [
        {**entry, "models": [model for model in entry.get("models", []) if model != name]}
        for entry in entries
    ]
    return [entry for entry in rest if entry["models"]]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise click.UsageError(f"{path}: is not JSON") from None
    return content if isinstance(content, dict) else {}
