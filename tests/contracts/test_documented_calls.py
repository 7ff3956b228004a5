"""Every `grpcurl` that a README shows: service and method are in the contracts, the body parses,
port and header are the service's.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from penstock.rpc.auth import TOKEN_KEY
from penstock.stack import ports
from penstock.stack.up import DEVELOPMENT_KEY
from penstock.testkit.documented_calls import DocumentedCall, documented_calls

ROOT = Path(__file__).parents[2]
NOUNS = ("router", "cache", "limiter", "batcher", "inference", "telemetry", "scaler")
TOKEN = f"{TOKEN_KEY}: $(cat .penstock/internal-token)"
KEY = f"authorization: Bearer {DEVELOPMENT_KEY}"


def calls() -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Where a call stands, its options by their letter, and its other words; a shell's `$T` is what
    the page gave it.
    """
    for call in documented_calls(ROOT):
        options, rest = dict[str, str](), list[str]()
        words = iter(shlex.split(call.line.replace('"$T"', f'"{TOKEN}"'))[1:])
        for word in words:
            if word in ("-H", "-d"):
                options[word] = next(words)
            elif word != "-plaintext":
                rest.append(word)
        yield call.page, options, rest


CALLS = list(calls())


def test_calls_are_found() -> None:
    assert {"README.md", "services/router/README.md"} <= {page for page, _, _ in CALLS}
    assert len(CALLS) >= 9
    assert f'T="{TOKEN}"' in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("page", "options", "words"), CALLS, ids=[f"{page}:{words[-1]}" for page, _, words in CALLS]
)
def test_a_call_that_a_page_shows_is_one_that_works(
    page: str, options: dict[str, str], words: list[str]
) -> None:
    for noun in NOUNS:
        import_module(f"penstock.api.{noun}.v1.{noun}_pb2")
    address, path = words
    service, _, method = path.partition("/")
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    assert not found.client_streaming
    json_format.Parse(options.get("-d", "{}"), GetMessageClass(found.input_type)())
    noun = service.split(".")[2]
    name = "inference-1" if noun == "inference" else noun
    assert address == ports.documented()[name]
    assert options["-H"] == (KEY if service.endswith(".RouterService") else TOKEN)


def test_real_addresses_take_the_place_of_documented_ones_whole() -> None:
    call = DocumentedCall("a page", "grpcurl 127.0.0.1:7070 127.0.0.1:70701 a.B/C")
    assert call.script({"127.0.0.1:7070": "h:1"}) == "grpcurl h:1 127.0.0.1:70701 a.B/C"
