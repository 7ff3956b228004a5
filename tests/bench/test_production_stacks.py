"""The stacks that benchmarks measure start in the production profile, in both shapes."""

from __future__ import annotations

import pytest
from penstock.bench.harness.echo import echo_process
from penstock.bench.overhead.sends import miss_of
from penstock.bench.overhead.stacks import Choices, instant_stack
from penstock.stack.shapes import SHAPES, Shape


@pytest.mark.processes
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_miss_is_served_by_a_stack_of_the_production_profile(shape: Shape) -> None:
    with echo_process() as echo:
        async with instant_stack(echo, Choices(shape)) as stack:
            assert await miss_of(stack)(0)
