"""Embedding tasks that come again, as they were made and measured the first time.

Most exact hits are short texts asked again and again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2
from penstock.router.requests.requests import check_texts, digest_of, measure
from penstock.router.requests.work import Work

LONGEST = 512
"""Characters of a text that is kept; longer ones and several together are made anew each time."""

KEPT = 2_048


class Repeat(NamedTuple):
    """A task, its size, and its digest where it is kept."""

    task: inference_pb2.Task
    work: Work
    digest: bytes = b""


class Repeats:
    """The latest short embedding tasks. What is given is shared: nobody may change it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Repeat] = OrderedDict()

    def embed(self, model: str, texts: Sequence[str]) -> Repeat:
        """The task of these texts and its size.

        Raises:
            Fault: INVALID_ARGUMENT for the first text that cannot be.
        """
        if len(texts) != 1 or len(texts[0]) > LONGEST:
            return _made(model, texts)
        key = (model, texts[0])
        kept = self._kept.get(key)
        if kept is None:
            made = _made(model, texts)
            kept = self._kept[key] = made._replace(digest=digest_of(made.task))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept


def _made(model: str, texts: Sequence[str]) -> Repeat:
    check_texts(texts)
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=texts))
    return Repeat(task, measure(model, task))
