"""What a command prints: tables for people, JSON with `--json`; errors in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 132
"""Columns where the output is no terminal: rich's default of 80 would cut long lines."""


def make_console() -> Console:
    """A console as wide as the terminal, or `PIPE_WIDTH` where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


class Output:
    """Prints results; with `as_json` only JSON, one document a result."""

    def __init__(self, console: Console, as_json: bool) -> None:
        self.console = console
        self.as_json = as_json

    def show(self, *parts: RenderableType, data: Message | dict[str, Any]) -> None:
        """Print the parts for people, or the data as JSON.

        A message is written as protobuf's JSON mapping says, with field names as in the contract.
        """
        if self.as_json:
            value = to_json(data) if isinstance(data, Message) else data
            self.console.file.write(json.dumps(value) + "\n")
            return
        for part in parts:
            self.console.print(part)


def to_json(message: Message) -> dict[str, Any]:
    """A message as protobuf's JSON mapping writes it, absent values included."""
    value: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return value


def table(*columns: str, right: Sequence[str] = (), title: str = "") -> Table:
    """A table without lines; the columns named in `right` are aligned to the right.

    Long words are folded, so that nothing is lost on a narrow terminal.
    """
    made = Table(
        box=None, pad_edge=False, header_style="dim", title=title or None, title_justify="left"
    )
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def plain(text: str) -> Text:
    """Text that may hold brackets, which rich would read as markup."""
    return Text(text)


def dollars(microusd: int) -> str:
    """An amount of micro-dollars."""
    return f"${microusd / 1e6:,.6f}"
