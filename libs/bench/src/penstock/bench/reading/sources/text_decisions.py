"""Places where control flow reads a text that our own code wrote for people.

A place is a comparison (`==`, `!=`, `in`, `not in`), a `startswith`, `endswith`, `partition`,
`split`, `removeprefix`, `removesuffix` or `find`, a pattern's `match`, `search` or `fullmatch`,
or a `match` statement, whose subject's name says that it is such a text (`NAMES_OF_TEXTS`) or
whose subject is the text of an exception (`str(error)`). Comparisons with nothing, or with codes
in capitals (`"NO_PRICE"`), do not count: those are written for programs. Text of others, which has
to be parsed, is exempt by function, with the reason (`EXEMPT`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from penstock.bench.reading.sources.places import Constants, Place, last_name, place, placed_nodes
from penstock.bench.reading.sources.tree import Source

NAMES_OF_TEXTS = frozenset(
    {
        "branch",
        "cause",
        "description",
        "details",
        "explanation",
        "message",
        "note",
        "notes",
        "reason",
        "rule",
        "summary",
        "why",
    }
)
NAMES_OF_ERRORS = frozenset({"error", "exc", "exception", "fault"})
READING_METHODS = frozenset(
    {
        "endswith",
        "find",
        "partition",
        "removeprefix",
        "removesuffix",
        "split",
        "startswith",
    }
)
PATTERN_METHODS = frozenset({"fullmatch", "match", "search"})
CODE = re.compile(r"[A-Z][A-Z0-9_]*|")
EXEMPT = {
    "_cannot_write": "Redis gives its error codes in the error's text and nowhere else",
    "WorkStream._make_group": "Redis says in the text alone that a consumer group exists already",
    "read_file": "joins the lines of PyYAML's text for its reader; decides nothing",
    "_changed_lines": "compares a caller's prompts line by line",
    "reason_for": "some providers say what failed in the error's text and nowhere else",
    "retry_delay_s": "some providers say how long to wait in the error's text and nowhere else",
    "ContentPolicy.clean_span": "leaves out the text of a sender's status unless it is a code",
    "_with_wire_field": "calls a field as the wire does where the text begins with it",
}
"""Functions that parse what others wrote, by qualified name, and why they have to."""


def text_decisions(sources: Sequence[Source]) -> list[Place]:
    """All places, one a line, in order of file and line; exempt ones among them."""
    constants = Constants(sources)
    found: dict[tuple[str, int], Place] = {}
    for source in sources:
        for node, around in placed_nodes(source):
            if _decides(node, source, constants):
                one = place(source, node, around)
                found.setdefault((one.file, one.line), one)
    return sorted(found.values())


def _decides(node: ast.AST, source: Source, constants: Constants) -> bool:
    if isinstance(node, ast.Compare):
        return _compares(node, source, constants)
    if isinstance(node, ast.Match):
        return _for_people(node.subject)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in READING_METHODS:
            return _for_people(node.func.value)
        return node.func.attr in PATTERN_METHODS and any(_for_people(one) for one in node.args)
    return False


def _compares(node: ast.Compare, source: Source, constants: Constants) -> bool:
    sides = (node.left, *node.comparators)
    texts = [text for side in sides for text in constants.texts(source, side)]
    written = [text for text in texts if not CODE.fullmatch(text)]
    return bool(written or _searches_error(node)) and any(_for_people(side) for side in sides)


def _searches_error(node: ast.Compare) -> bool:
    """`code in str(error)`: a code perhaps, but looked for in a text."""
    return any(isinstance(op, ast.In | ast.NotIn) for op in node.ops) and _is_error(
        node.comparators[-1]
    )


def _for_people(node: ast.expr) -> bool:
    return last_name(node) in NAMES_OF_TEXTS or _is_error(node)


def _is_error(node: ast.expr) -> bool:
    """`str(error)` or an f-string of one."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("repr", "str")
    ):
        return any(last_name(one) in NAMES_OF_ERRORS for one in node.args)
    if isinstance(node, ast.JoinedStr):
        parts = [one.value for one in node.values if isinstance(one, ast.FormattedValue)]
        return any(last_name(one) in NAMES_OF_ERRORS for one in parts)
    return False
