"""Makes requests of what a caller gives.

What cannot be sent raises BadRequest with the field's name, before anything leaves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client.errors import bad
from penstock.client.run import Run
from penstock.rpc.call import PRIORITIES

ADDRESS = re.compile(r"unix:.+|(\[[0-9a-fA-F:.]+\]|[^/:\s]+):\d{1,5}")
OF_THE_RUN = ("run_id", "step", "priority")
MOST_LABELS = 2**32 - 1


def check_connection(address: str, key: str, retries: int) -> None:
    """Raises BadRequest where no connection can be made with these."""
    if not isinstance(address, str) or not ADDRESS.fullmatch(address):
        raise bad("address", f"{address!r} is not host:port or unix:/path, such as 127.0.0.1:7070")
    if not isinstance(key, str) or not key:
        raise bad("key", "is empty; give the API key (`make up` prints the one of development)")
    if not (key.isascii() and key.isprintable()):
        raise bad(
            "key",
            "has characters that no API key has; was a line end or a quotation mark copied "
            "with it?",
        )
    if not isinstance(retries, int) or retries < 0:
        raise bad("retries", f"{retries!r} is not a whole number of 0 or more")


def options_of(model: str, run: Run, options: pb.CallOptions | None) -> pb.CallOptions:
    """The call's options: what the caller gave, the model if one is named, and the run."""
    made = pb.CallOptions(
        model=model, run_id=run.id, step=run.step, priority=PRIORITIES[run.priority]
    )
    if options is not None:
        for field in OF_THE_RUN:
            if getattr(options, field):
                raise bad(f"options.{field}", "is what `run` says; give it there")
        made.MergeFrom(options)
        made.model = model or options.model
    return made


def texts_of(field: str, texts: Sequence[str]) -> list[str]:
    """The texts, each of them a text that can be written in UTF-8."""
    if isinstance(texts, str | bytes):
        raise bad(field, "is a single text; give a list, such as [text]")
    try:
        listed = list(texts)
    except TypeError:
        raise bad(field, f"is {_kind(texts)}, not a list of texts") from None
    for number, text in enumerate(listed):
        text_of(f"{field}[{number}]", text)
    return listed


def text_of(field: str, text: str) -> str:
    """The text, if it is one that can be written in UTF-8."""
    if not isinstance(text, str):
        raise bad(field, f"is {_kind(text)}, not a text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise bad(
                field,
                f"has half a surrogate pair at character {error.start}, which no UTF-8 can hold",
            ) from None
    return text


def labelled(examples: Mapping[str, Sequence[str]] | None) -> list[inference_pb2.LabelledExample]:
    """Examples of classes, one message each."""
    if examples is None:
        return []
    if not isinstance(examples, Mapping):
        raise bad("examples", f"is {_kind(examples)}, not a mapping of labels to lists of texts")
    return [
        inference_pb2.LabelledExample(label=text_of("examples", label), text=text)
        for label, group in examples.items()
        for text in texts_of(f"examples[{label!r}]", group)
    ]


def count_of(top_k: int) -> int:
    """How many labels are wanted."""
    if not isinstance(top_k, int) or not 0 <= top_k <= MOST_LABELS:
        raise bad("top_k", f"{top_k!r} is not a whole number of 0 or more")
    return top_k


def conversation(task: inference_pb2.GenerateTask | str) -> inference_pb2.GenerateTask:
    """What to continue; a text alone is a conversation of one user's turn."""
    if isinstance(task, inference_pb2.GenerateTask):
        return task
    return inference_pb2.GenerateTask(
        messages=[inference_pb2.Message(role="user", content=text_of("task", task))]
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
