"""Telemetry starts before the services that report to it and stops after them, so that their last
exports are not lost.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.stack import ports
from penstock.stack.plan import StackPlan
from penstock.stack.shapes import Shape


@pytest.mark.parametrize(("shape", "collector"), [("processes", "telemetry"), ("cell", "beside")])
def test_telemetry_starts_before_every_process_that_reports_to_it(
    tmp_path: Path, shape: Shape, collector: str
) -> None:
    """The supervisor stops what it started last first, so the stopping order follows."""
    config = tmp_path / "penstock.yaml"
    plan = StackPlan(ports.documented(), tmp_path, tmp_path, config, "token", shape=shape)
    order = [program for stage in plan.stages() for program in stage]
    position = [program.name for program in order].index(collector)
    reporting = [
        at for at, program in enumerate(order) if program.env.get("PENSTOCK_OTLP_ENDPOINT")
    ]
    assert reporting
    assert min(reporting) >= position
