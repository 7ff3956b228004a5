"""Transforms of one tool result that lose no information.

Each returns the shorter text, or None where it does not apply. `optimiser` decides which texts they
see: never those of users, assistants or the system.
"""

from __future__ import annotations

import re

MIN_FOLDED_LINES = 3

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_CODE_OR_LIST = re.compile(
    r"```|~~~|^(?:diff --git|@@ |\+\+\+ |--- )|^\s*(?:def|class|import|from|return|if|for|while)\b"
    r"|^\s*(?:function|const|let|var|public|private|#include)\b"
    r"|[{};]\s*$|^\s*[-*+]\s|^\s*\d+[.)]\s|^\s*\||^\s*#{1,6}\s"
    r"|^[ \t]*[\w.-]+:(?:\s|$)|^\t|^ {2,}\S",
    re.MULTILINE,
)
_TIMESTAMP = re.compile(
    r"^\[?\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?\]?\s+"
)
_TRAILING_BLANKS = re.compile(r"[ \t]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


def strip_escapes(text: str) -> str | None:
    """Remove a terminal's colour and cursor codes."""
    shorter = _ESCAPE.sub("", text)
    return shorter if shorter != text else None


def fold_repeated_lines(text: str) -> str | None:
    """Replace runs of log lines that differ only in their timestamp by one line.

    The line has the number of lines and the first and last timestamp; a run has at least three.
    """
    lines = text.split("\n")
    folded: list[str] = []
    start = 0
    while start < len(lines):
        end = _run_end(lines, start)
        run = lines[start:end]
        folded += [_fold(run)] if len(run) >= MIN_FOLDED_LINES else run
        start = end
    return "\n".join(folded) if len(folded) < len(lines) else None


def _run_end(lines: list[str], start: int) -> int:
    body = _TIMESTAMP.sub("", lines[start])
    end = start + 1
    while body.strip() and end < len(lines) and _TIMESTAMP.sub("", lines[end]) == body:
        end += 1
    return end


def _fold(run: list[str]) -> str:
    first = _TIMESTAMP.match(run[0])
    last = _TIMESTAMP.match(run[-1])
    until = ""
    if first and last and first.group() != last.group():
        until = f", last at {last.group().strip()}"
    return f"{run[0]} [repeated {len(run)} times{until}]"


def trim_prose(text: str) -> str | None:
    """Remove trailing blanks and all but one of several empty lines in a row.

    Text that may be code or a list is left alone.
    """
    if _CODE_OR_LIST.search(text):
        return None
    shorter = _EMPTY_LINES.sub("\n\n", _TRAILING_BLANKS.sub("", text)).strip("\n")
    return shorter if shorter != text else None


TEXT_TRANSFORMS = (("fold", fold_repeated_lines), ("prose", trim_prose))
"""For results that are not JSON, in the order of applying; each sees the result of the one before.
"""
