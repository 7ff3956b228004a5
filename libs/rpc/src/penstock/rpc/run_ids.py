"""Ids of started runs: `run-` and 26 characters; a child's is its root's, a dot and 10 more.

The router makes them, so that an id says whether its run may have been started, and which tree it
belongs to; of any other run nobody asks the limiter. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re

from penstock.service.purity import pure

PREFIX, SEPARATOR = "run-", "."
ROOT_CHARACTERS, CHILD_CHARACTERS = 26, 10
STARTED = re.compile(
    rf"{PREFIX}[a-z2-7]{{{ROOT_CHARACTERS}}}(?:\{SEPARATOR}[a-z2-7]{{{CHILD_CHARACTERS}}})?"
)


@pure
def may_be_started(run_id: str) -> bool:
    """Whether a run's id is one that a start makes."""
    return run_id.startswith(PREFIX) and STARTED.fullmatch(run_id) is not None


@pure
def started_id(parent_id: str, *parts: str) -> str:
    """The id of a run that is started: always the same for the same parent and parts.

    Args:
        parent_id: the run that opens it; empty for none.
        parts: who starts it, and the token of the start.
    """
    digest = hashlib.sha256("\n".join((parent_id, *map(repr, parts))).encode()).digest()
    text = base64.b32encode(digest).decode().lower()
    if parent_id:
        root = parent_id.partition(SEPARATOR)[0]
        return f"{root}{SEPARATOR}{text[:CHILD_CHARACTERS]}"
    return PREFIX + text[:ROOT_CHARACTERS]


@pure
def tree_of(run_id: str) -> str:
    """The root of a run that may be started; of any other, the run itself."""
    root = run_id.partition(SEPARATOR)[0]
    return root if may_be_started(root) else run_id


@pure
def is_within(run_id: str, top: str) -> bool:
    """Whether a run is `top` or, where that is a root that may be started, below it. Of a child ids
    do not say what lies below it.
    """
    return top in (run_id, tree_of(run_id))
