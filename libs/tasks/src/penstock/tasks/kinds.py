"""The kinds of task that there are. A new kind is added here, and in its own module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from penstock.rpc.errors import invalid
from penstock.tasks.classify import Classify
from penstock.tasks.embed import Embed
from penstock.tasks.generate import Generate
from penstock.tasks.infer import Infer
from penstock.tasks.kind import Kind, Task
from pydantic import AfterValidator

EMBED, CLASSIFY, GENERATE, INFER = Embed(), Classify(), Generate(), Infer()
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (EMBED, CLASSIFY, GENERATE, INFER)}


def kind_of(task: Task) -> Kind:
    """The kind of a task.

    Raises:
        Fault: INVALID_ARGUMENT where the task is empty.
        KeyError: the contract has a kind that is not listed here.
    """
    name = task.WhichOneof("task")
    if name is None:
        raise invalid("task", "is empty")
    return KINDS[name]


def _known(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"{name!r} is not one of {', '.join(KINDS)}")
    return name


KindName = Annotated[str, AfterValidator(_known)]
"""The name of a kind in a setting."""
