"""Every `grpcurl` line that a README or a guide shows, by the real grpcurl against a real stack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from penstock.bench.documented_calls.benchmark import ROOT, documented_stack
from penstock.stack import ports
from penstock.testkit.documented_calls import (
    DocumentedCall,
    documented_calls,
    run_documented_calls,
)

CALLS = list(documented_calls(ROOT))
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Documented:
    """A folder as a reader of the pages has it, and the real addresses for the documented ones."""

    folder: Path
    addresses: Mapping[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def documented(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Documented]:
    folder = tmp_path_factory.mktemp("documented")
    async with documented_stack(folder, home) as addresses:
        yield Documented(folder, addresses)


@pytest.mark.parametrize(
    "call", CALLS, ids=[f"{call.page}:{call.line.rpartition('/')[2]}" for call in CALLS]
)
async def test_a_line_that_a_page_shows_works(call: DocumentedCall, documented: Documented) -> None:
    (outcome,) = await run_documented_calls([call], documented.folder, documented.addresses)
    assert outcome.status == 0, outcome.output
    assert messages_of(outcome.output)


def messages_of(output: str) -> list[object]:
    """The messages that grpcurl printed, one after the other; several of a stream."""
    decoder, messages, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages


async def test_a_line_that_does_not_work_is_noticed(documented: Documented) -> None:
    wrong = DocumentedCall("a page", f"grpcurl -plaintext {ports.documented()['router']} a.B/C")
    (outcome,) = await run_documented_calls([wrong], documented.folder, documented.addresses)
    assert outcome.status != 0
