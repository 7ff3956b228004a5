"""The kinds of task that there are. A new kind is added here, and in its own module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from penstock.api.inference.v1 import inference_pb2
from penstock.rpc.errors import invalid
from penstock.tasks.classify import Classify
from penstock.tasks.embed import Embed
from penstock.tasks.generate import Generate
from penstock.tasks.infer import Infer
from penstock.tasks.kind import Kind, Task
from penstock.tasks.rerank import Rerank
from pydantic import AfterValidator

EMBED, CLASSIFY, GENERATE, INFER, RERANK = Embed(), Classify(), Generate(), Infer(), Rerank()
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (EMBED, CLASSIFY, GENERATE, INFER, RERANK)}
NAMES: Mapping[int, str] = {kind.number: kind.name for kind in KINDS.values()}
"""The names of kinds by the numbers that contracts use."""


def numbers_of(names: Iterable[str]) -> list[inference_pb2.TaskKind]:
    """The numbers of named kinds; names that this version does not know are left out."""
    return [KINDS[name].number for name in names if name in KINDS]


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
