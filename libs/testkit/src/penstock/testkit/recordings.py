"""Recorded answers of providers, of each kind that is seen in the field, and what each must become.

A recording is a file of the folder `recordings/<wire>/`: lines of `name: value`, a line `---`, then
the body as the provider sent it. The names: `about` says what is peculiar; `expect` is a JSON
object with what must come out, or the `reason` of the failure; `provider` is whose defaults apply;
`stream: no` marks a whole answer; `lines: crlf` or `cr` gives the body other line ends, and `mark:
yes` a byte order mark, which text files do not keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

LINE_ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEFAULT_PROVIDERS = {"openai-chat": "openai", "anthropic-messages": "anthropic"}


@dataclass(frozen=True)
class Recording:
    """One recorded answer."""

    name: str
    wire: str
    about: str
    provider: str
    is_stream: bool
    expect: Mapping[str, Any]
    body: bytes

    def __str__(self) -> str:
        return f"{self.wire}/{self.name}"


@cache
def recordings() -> tuple[Recording, ...]:
    """All recordings, in the order of their names."""
    folder = resources.files("penstock.testkit") / "recordings"
    found = []
    for wire in DEFAULT_PROVIDERS:
        files = (folder / wire.replace("-", "_")).iterdir()
        found += [_parsed(wire, file.name, file.read_bytes()) for file in files]
    return tuple(sorted(found, key=str))


def recording(wire: str, name: str) -> Recording:
    """The recording of that name."""
    return next(each for each in recordings() if (each.wire, each.name) == (wire, name))


def _parsed(wire: str, file_name: str, content: bytes) -> Recording:
    head, _, body = content.partition(b"---\n")
    lines = (line.partition(": ") for line in head.decode().split("\n") if line)
    fields = {name: value for name, _, value in lines}
    body = body.replace(b"\n", LINE_ENDS[fields.get("lines", "lf")])
    if fields.get("mark") == "yes":
        body = BYTE_ORDER_MARK + body
    return Recording(
        file_name.removesuffix(".recording"),
        wire,
        fields["about"],
        fields.get("provider", DEFAULT_PROVIDERS[wire]),
        fields.get("stream") != "no",
        json.loads(fields["expect"]),
        body,
    )
