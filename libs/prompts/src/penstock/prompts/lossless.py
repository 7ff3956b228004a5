"""Transforms of one tool result that lose nothing: each gives the shorter text, or None where it
does not apply.

Which text may be touched is decided in `optimiser`; user, assistant and system turns never come
here.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CODE = re.compile(
    r"```|~~~|^(?:diff --git|@@ |\+\+\+ |--- )|^\s*(?:def|class|import|from|return|if|for|while)\b"
    r"|^\s*(?:function|const|let|var|public|private|#include)\b"
    r"|[{};]\s*$|^\s*[-*+]\s|^\s*\d+[.)]\s|^\s*\||^\s*#{1,6}\s"
    r"|^[ \t]*[\w.-]+:(?:\s|$)|^\t|^ {2,}\S",
    re.MULTILINE,
)
_STAMP = re.compile(
    r"^\[?\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?\]?\s+"
)


def without_escapes(text: str) -> str | None:
    """Terminal output without colour and cursor codes."""
    shorter = _ESCAPE.sub("", text)
    return shorter if shorter != text else None


def folded(text: str) -> str | None:
    """Runs of three or more log lines that differ only in their time stamp, as one line with the
    count and both stamps.
    """
    lines = text.split("\n")
    out: list[str] = []
    start = 0
    while start < len(lines):
        end = _run_end(lines, start)
        out += lines[start:end] if end - start < 3 else [_fold(lines[start:end])]
        start = end
    return "\n".join(out) if len(out) < len(lines) else None


def _run_end(lines: list[str], start: int) -> int:
    body = _STAMP.sub("", lines[start])
    end = start + 1
    while body.strip() and end < len(lines) and _STAMP.sub("", lines[end]) == body:
        end += 1
    return end


def _fold(run: list[str]) -> str:
    first, last = _STAMP.match(run[0]), _STAMP.match(run[-1])
    until = (
        f", last at {last.group().strip()}"
        if first and last and first.group() != last.group()
        else ""
    )
    return f"{run[0]} [repeated {len(run)} times{until}]"


def trimmed_prose(text: str) -> str | None:
    """Prose without trailing blanks and with at most one empty line in a row; anything that may be
    code or a list is left alone.
    """
    if _CODE.search(text):
        return None
    shorter = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip(
        "\n"
    )
    return shorter if shorter != text else None


TEXT_TRANSFORMS = (("fold", folded), ("prose", trimmed_prose))
"""For what is not JSON, in the order in which they are tried; each sees the result of the one
before.
"""
