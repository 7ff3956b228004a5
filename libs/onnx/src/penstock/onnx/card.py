"""The model card: what a model folder holds, checked against its files before anything is loaded.

No session lives here.
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
    tokenizer: str = ""
    max_input_tokens: int = 0
    dimension: int = 0
    labels: tuple[str, ...] = ()
    rows_singly: bool = True
    opset: int = 0
    quantisation: str = ""
    sources: tuple[str, ...] = ()
    licence: str = ""
    files: dict[str, ModelFile]
    figures: dict[str, float] = {}
    machine: dict[str, str] = {}

    @property
    def revision(self) -> str:
        """Version folder and the first 12 digits of the model file's SHA-256."""
        return f"{self.version}-{self.files[self.model].sha256[:12]}"


def checksum(path: Path) -> ModelFile:
    """Size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return ModelFile(size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def read_card(folder: Path) -> ModelCard:
    """Read and check a model folder's card.

    Raises:
        BadModel: there is no card, it is not one, or a file differs from what it says.
    """
    card = parse_card(folder)
    for name, expected in card.files.items():
        _check(folder, name, expected)
    return card


def parse_card(folder: Path) -> ModelCard:
    """What a card says, its files not compared.

    Raises:
        BadModel: there is no card, or it is not one.
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


def _check(folder: Path, name: str, expected: ModelFile) -> None:
    path = folder / name
    if Path(name).name != name:
        raise BadModel(f"{folder / CARD}: {name!r} leaves the model's folder")
    if not path.is_file():
        raise BadModel(f"{path}: is missing; the card names it")
    if checksum(path) != expected:
        raise BadModel(f"{path}: differs from its card (checksum); build or fetch the model again")


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card as JSON and, for people, as Markdown."""
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
    (folder / "card.md").write_text(_markdown(card))


def _markdown(card: ModelCard) -> str:
    rows = [f"| {name} | {value:.5g} |" for name, value in card.figures.items()]
    files = [
        f"| {name} | {file.size_bytes:,} | `{file.sha256}` |" for name, file in card.files.items()
    ]
    facts = {
        "Tasks": ", ".join(card.tasks),
        "Longest input": f"{card.max_input_tokens} tokens",
        "Dimension": card.dimension,
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
