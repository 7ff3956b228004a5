"""Three times what an instance can do: who is shed first, with which status, and that all is well
again afterwards.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.fault_suite.overload import MAX_RECOVERY_S, measure

SECONDS, PEAK_S = 5.0, 2.0
EXPECTED = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


@pytest.mark.fault(19)
async def test_under_three_times_capacity_the_lowest_class_is_shed_first(tmp_path: Path) -> None:
    overloaded = await measure(tmp_path, SECONDS, PEAK_S)
    assert overloaded.codes.keys() <= EXPECTED
    assert overloaded.codes.keys() >= {"OK", "RESOURCE_EXHAUSTED"}
    assert overloaded.low_class_shed_first
    assert overloaded.served_share["high"] > overloaded.served_share["normal"]
    assert overloaded.recovery_s < MAX_RECOVERY_S, "calls are quick again"
