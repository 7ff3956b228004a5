"""The matrix of `overhead`: what a load of one way says, and who may be asked for a matrix."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from penstock.bench.edge.http_client import HttpError
from penstock.bench.harness.echo import echo_process
from penstock.bench.harness.processes import home_folder
from penstock.bench.overhead.matrix.measure import SHARES, load_of, memory_mb, programs_of
from penstock.bench.overhead.matrix.semantic import SEMANTIC_HIT, semantic_hit_of, sorter
from penstock.bench.overhead.matrix.ways import documents_of, text_of
from penstock.bench.overhead.stacks import Choices, instant_stack


@pytest.mark.parametrize("size", [100, 10_000, 100_000])
def test_a_payload_has_the_size_that_is_said(size: int) -> None:
    assert len(text_of(size).encode()) == size
    documents = documents_of(text_of(size))
    assert len(set(documents)) == len(documents) == 10
    assert 0.9 * size <= len("".join(documents)) <= size


async def test_a_load_counts_answers_and_failures_apart() -> None:
    async def send(number: int) -> object:
        await asyncio.sleep(0)
        if number % 2:
            raise HttpError("status 503")
        return number

    load = await load_of(send, 2, 0.05, programs_of([os.getpid()]))
    assert load.calls > 0
    assert abs(load.calls - load.failed) <= 2
    assert len(load.quantiles_ms) == len(SHARES)
    assert list(load.quantiles_ms) == sorted(load.quantiles_ms)
    assert load.all_cpu_ms == pytest.approx(sum(load.cpu_ms.values()))


async def test_a_load_that_only_fails_is_no_measurement() -> None:
    async def send(_: int) -> object:
        raise HttpError("status 503")

    with pytest.raises(RuntimeError, match="calls failed"):
        await load_of(send, 1, 0.0001, {})


def test_memory_is_told_by_program() -> None:
    with echo_process() as echo:
        held = memory_mb(programs_of([echo.pid]))
    assert held.keys() == {"bench.harness.echo"}
    assert held["bench.harness.echo"] > 1


@pytest.mark.processes
async def test_a_text_that_is_never_stored_is_answered_as_a_similar_one_was() -> None:
    choices = Choices(models=home_folder() / "models")
    with echo_process() as echo:
        async with instant_stack(echo, choices) as stack, sorter(stack):
            send = await semantic_hit_of(stack, padding="")
            outcomes = [await send(number) for number in range(8)]
    assert outcomes.count(SEMANTIC_HIT) >= 6


def test_only_some_benchmarks_have_a_matrix() -> None:
    command = [sys.executable, "-m", "penstock.bench", "hop", "--matrix"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == ["penstock.bench: --matrix is for overhead, without --part"]
