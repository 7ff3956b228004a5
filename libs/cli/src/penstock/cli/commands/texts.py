"""`penstock embed`, `classify` and `rerank`: texts from arguments, a file or standard input."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click
from penstock.cli.options import Command, with_session
from penstock.cli.output import plain, table
from penstock.cli.receipt import receipt_line
from penstock.cli.session import Session

TIMEOUT_S = 30.0
SHOWN_VALUES = 3
"""Components of an embedding that are shown to people; JSON has all."""


@click.command(cls=Command)
@click.argument("texts", nargs=-1)
@click.option("--file", "file", help="file of texts, one a line; - is standard input")
@click.option("--model", default="", help="model to use; default: the router's")
@with_session
def embed(session: Session, texts: tuple[str, ...], file: str, model: str) -> None:
    """Turn texts into vectors, and show how near each is to the first."""
    wanted = texts_of(texts, file)
    with session.client() as client:
        answer = client.embed(wanted, model=model, run=session.run(TIMEOUT_S, "embed"))
    first = answer.embeddings[0].values
    shown = table("text", "size", "values", "cosine to the first", right=("size",))
    for text, embedding in zip(wanted, answer.embeddings, strict=True):
        values = embedding.values
        head = ", ".join(f"{value:.3f}" for value in values[:SHOWN_VALUES])
        shown.add_row(plain(text), str(len(values)), f"{head}, …", f"{_cosine(first, values):.3f}")
    session.output.show(shown, receipt_line(answer.receipt), data=answer)


@click.command(cls=Command)
@click.argument("texts", nargs=-1)
@click.option("--file", help="file of texts, one a line; - is standard input")
@click.option(
    "--example", "examples", multiple=True, metavar="LABEL=TEXT", help="a text of a class; repeat"
)
@click.option(
    "--examples",
    "example_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="CSV file of labels and texts, without a header",
)
@click.option("--model", default="", help="model to use; default: the router's")
@click.option("--top", default=1, show_default=True, help="labels to show for each text")
@with_session
def classify(
    session: Session,
    texts: tuple[str, ...],
    file: str,
    examples: tuple[str, ...],
    example_file: Path | None,
    model: str,
    top: int,
) -> None:
    """Label texts by examples, or by the model's own head where none are given."""
    wanted = texts_of(texts, file)
    labelled = _labelled(examples, example_file)
    run = session.run(TIMEOUT_S, "classify")
    with session.client() as client:
        answer = client.classify(wanted, labelled or None, model=model, top_k=top, run=run)
    shown = table("text", "label", "probability", right=("probability",))
    for text, row in zip(wanted, answer.classifications, strict=True):
        for number, label in enumerate(row.labels):
            shown.add_row(
                plain(text if number == 0 else ""), plain(label.label), f"{label.score:.1%}"
            )
    session.output.show(shown, receipt_line(answer.receipt), data=answer)


@click.command(cls=Command)
@click.argument("query")
@click.argument("documents", nargs=-1)
@click.option("--file", help="file of documents, one a line; - is standard input")
@click.option("--model", default="", help="model to use; default: the router's")
@click.option("--top", default=0, help="documents to show; default: all")
@with_session
def rerank(
    session: Session, query: str, documents: tuple[str, ...], file: str, model: str, top: int
) -> None:
    """Order documents by their relevance to a query."""
    wanted = texts_of(documents, file)
    with session.client() as client:
        answer = client.rerank(
            query, wanted, model=model, top_n=top, run=session.run(TIMEOUT_S, "rerank")
        )
    shown = table("score", "document", right=("score",))
    for row in answer.ranking:
        shown.add_row(f"{row.score:.3f}", plain(wanted[row.index]))
    session.output.show(shown, receipt_line(answer.receipt), data=answer)


def texts_of(texts: Sequence[str], file: str | None) -> list[str]:
    """The texts of the arguments, else of the file, one a line; `-` is standard input.

    Raises:
        click.UsageError: there is none, or the file cannot be read.
    """
    if texts and file:
        raise click.UsageError("give texts or --file, not both")
    if file:
        texts = [line for line in _read(file).splitlines() if line.strip()]
    if not texts:
        raise click.UsageError("give at least one text, or a file of texts with --file")
    return list(texts)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise click.UsageError(f"{file}: cannot be read ({reason})") from None


def _labelled(examples: Sequence[str], file: Path | None) -> dict[str, list[str]]:
    """Texts by label, of the options and of the CSV file."""
    pairs = [tuple(example.partition("=")[::2]) for example in examples]
    if file is not None:
        rows = csv.reader(io.StringIO(_read(str(file)), newline=""))
        pairs += [(row[0], row[1]) for row in rows if len(row) > 1]
    labelled = defaultdict[str, list[str]](list)
    for label, text in pairs:
        if not label or not text:
            raise click.UsageError(f"--example {label!r}: write LABEL=TEXT")
        labelled[label].append(text)
    return dict(labelled)


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    norms = math.hypot(*left) * math.hypot(*right)
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / norms if norms else 0.0
