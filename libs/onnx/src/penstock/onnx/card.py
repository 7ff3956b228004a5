"""The model card: what a model folder holds, and whether its files are what the card says.

The card stands in the folder as `card.json`, and for people as `card.md`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

CARD = "card.json"


class BadModel(Exception):
    """A model folder cannot be used; the text says which file and why."""


class ModelFile(BaseModel):
    """One file of the model: its size in bytes and its SHA-256 in hexadecimal."""

    model_config = ConfigDict(frozen=True)
    size_bytes: int
    sha256: str


class ModelCard(BaseModel):
    """What a model is, where it comes from and what was measured when it was made."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: str
    version: str
    tasks: tuple[str, ...]
    model: str
    """File name of the model."""
    tokenizer: str = ""
    """File name of the tokenizer; empty for a model of tensors only."""
    max_input_tokens: int = 0
    default_output_tokens: int = 0
    """Tokens of an answer where the caller names no number; 0: as many as the context has room."""
    repetition_penalty: float = 1.0
    """How much less probable a token becomes by standing in the conversation; 1: not at all."""
    dimension: int = 0
    """Numbers in an embedding; 0 for a model without embeddings."""
    labels: tuple[str, ...] = ()
    """Labels of the classifier head, in the order of its output."""
    rows_singly: bool = True
    """Whether rows must run one at a time, because an answer would depend on its batch."""
    opset: int = 0
    """Version of the standard ONNX operators."""
    quantisation: str = ""
    sources: tuple[str, ...] = ()
    licence: str = ""
    files: dict[str, ModelFile]
    figures: dict[str, float] = {}
    machine: dict[str, str] = {}

    @property
    def revision(self) -> str:
        """Name of the version folder, and the first 12 digits of the model file's SHA-256."""
        return f"{self.version}-{self.files[self.model].sha256[:12]}"


def checksum(path: Path) -> ModelFile:
    """The size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return ModelFile(size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder, all of whose files are as it says.

    Raises:
        BadModel: there is no card, it is not valid, or a file is missing or differs from it.
    """
    card = parse_card(folder)
    for name, expected in card.files.items():
        _check_file(folder, name, expected)
    return card


def parse_card(folder: Path) -> ModelCard:
    """The card of a model folder, without a look at its other files.

    Raises:
        BadModel: there is no card, or it is not valid.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        raise BadModel(
            f"{folder / CARD}: cannot be read ({error.strerror}); run `make model`"
        ) from None
    except ValidationError as error:
        raise BadModel(
            f"{folder / CARD}: is not a model card ({error.error_count()} errors)"
        ) from None


def _check_file(folder: Path, name: str, expected: ModelFile) -> None:
    path = folder / name
    if Path(name).name != name:
        raise BadModel(f"{folder / CARD}: {name!r} leaves the model's folder")
    if not path.is_file():
        raise BadModel(f"{path}: is missing; the card names it")
    if checksum(path) != expected:
        raise BadModel(f"{path}: differs from its card (checksum); build or fetch the model again")


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card into its folder, as JSON and as Markdown."""
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    (folder / "card.md").write_text(_markdown(card))


def _answer_facts(card: ModelCard) -> dict[str, object]:
    return {
        "Default output": f"{card.default_output_tokens or 'all remaining'} tokens",
        "Repetition penalty": card.repetition_penalty,
    }


def _markdown(card: ModelCard) -> str:
    rows = [f"| {name} | {value:.5g} |" for name, value in card.figures.items()]
    files = [
        f"| {name} | {file.size_bytes:,} | `{file.sha256}` |" for name, file in card.files.items()
    ]
    facts: dict[str, object] = {
        "Tasks": ", ".join(card.tasks),
        "Longest input": f"{card.max_input_tokens} tokens",
        **({"Dimension": card.dimension} if card.dimension else {}),
        **(_answer_facts(card) if "generate" in card.tasks else {}),
        "Quantisation": card.quantisation,
        "Opset": card.opset,
        "Licence": card.licence,
        "Sources": "; ".join(card.sources),
        "Made on": json.dumps(card.machine),
    }
    lines = [
        f"# {card.name} {card.version}",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
    ]
    lines += [
        "",
        "| figure | value |",
        "|---|---|",
        *rows,
        "",
        "| file | bytes | SHA-256 |",
        "|---|---|---|",
        *files,
    ]
    return "\n".join(lines) + "\n"
