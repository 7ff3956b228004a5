"""How many threads a decoder gets by default."""

from __future__ import annotations

import pytest
from penstock.inference_onnx_quantized.settings import threads_for_a_decoder


@pytest.mark.parametrize(
    ("usable", "present", "threads"),
    [(8, 8, 0), (1, 1, 0), (2, 8, 2), (1, 2, 1), (4, None, 0)],
    ids=["the whole machine", "one core", "a quota", "an affinity", "an unknown machine"],
)
def test_the_runtime_chooses_unless_it_may_not_use_the_whole_machine(
    usable: int, present: int | None, threads: int
) -> None:
    assert threads_for_a_decoder(usable, present) == threads
