"""Requests made from a caller's arguments.

An argument that cannot be sent raises BadRequest with the name of its field, before anything is
sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.client.errors import bad_request
from penstock.client.run import Run
from penstock.rpc.call import PRIORITIES

ADDRESS = re.compile(r"unix:.+|(\[[0-9a-fA-F:.]+\]|[^/:\s]+):\d{1,5}")
RUN_FIELDS = ("run_id", "step", "priority")
"""Fields of CallOptions that the argument `run` gives."""
MAX_COUNT = 2**32 - 1


def check_connection(address: str, key: str, retries: int) -> None:
    """Check the arguments of a client.

    Raises:
        BadRequest: one of them cannot be used.
    """
    if not isinstance(address, str) or not ADDRESS.fullmatch(address):
        raise bad_request(
            "address", f"{address!r} is not host:port or unix:/path, such as 127.0.0.1:7070"
        )
    if not isinstance(key, str) or not key:
        raise bad_request("key", "is empty; give an API key (`make up` prints a development key)")
    if not (key.isascii() and key.isprintable()):
        raise bad_request(
            "key",
            "has characters that no API key has; check for a line break or a quotation mark that "
            "was copied with it",
        )
    if not isinstance(retries, int) or retries < 0:
        raise bad_request("retries", f"{retries!r} is not a whole number of 0 or more")


def call_options(model: str, run: Run, options: pb.CallOptions | None) -> pb.CallOptions:
    """The options of a call: those of the caller, with the run, and with `model` where it is given.

    Raises:
        BadRequest: `options` has a field that `run` gives.
    """
    merged = pb.CallOptions(
        model=model, run_id=run.id, step=run.step, priority=PRIORITIES[run.priority]
    )
    if options is not None:
        for field in RUN_FIELDS:
            if getattr(options, field):
                raise bad_request(f"options.{field}", "is given by `run`; set it there")
        merged.MergeFrom(options)
        merged.model = model or options.model
    return merged


def checked_texts(field: str, texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        BadRequest: it is no list, or one of the texts cannot be sent.
    """
    if isinstance(texts, str | bytes):
        raise bad_request(field, "is a single text; give a list, such as [text]")
    try:
        listed = list(texts)
    except TypeError:
        raise bad_request(field, f"is {_type_of(texts)}, not a list of texts") from None
    for number, text in enumerate(listed):
        checked_text(f"{field}[{number}]", text)
    return listed


def checked_text(field: str, text: str) -> str:
    """The text.

    Raises:
        BadRequest: it is no string, or one that UTF-8 cannot encode.
    """
    if not isinstance(text, str):
        raise bad_request(field, f"is {_type_of(text)}, not a text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise bad_request(
                field,
                f"has half a surrogate pair at character {error.start}, which UTF-8 cannot encode",
            ) from None
    return text


def labelled_examples(
    examples: Mapping[str, Sequence[str]] | None,
) -> list[inference_pb2.LabelledExample]:
    """The example texts by label as messages; none for None.

    Raises:
        BadRequest: it is no mapping, or one of the texts cannot be sent.
    """
    if examples is None:
        return []
    if not isinstance(examples, Mapping):
        raise bad_request(
            "examples", f"is {_type_of(examples)}, not a mapping of labels to lists of texts"
        )
    return [
        inference_pb2.LabelledExample(label=checked_text("examples", label), text=text)
        for label, texts in examples.items()
        for text in checked_texts(f"examples[{label!r}]", texts)
    ]


def checked_count(field: str, count: int) -> int:
    """How many labels or documents to return.

    Raises:
        BadRequest: it is no whole number of 0 or more.
    """
    if not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
        raise bad_request(field, f"{count!r} is not a whole number of 0 or more")
    return count


def generate_task(task: inference_pb2.GenerateTask | str) -> inference_pb2.GenerateTask:
    """The task itself, or a conversation of one user message for a text.

    Raises:
        BadRequest: the text cannot be sent.
    """
    if isinstance(task, inference_pb2.GenerateTask):
        return task
    message = inference_pb2.Message(
        role=inference_pb2.ROLE_USER, content=checked_text("task", task)
    )
    return inference_pb2.GenerateTask(messages=[message])


def _type_of(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
