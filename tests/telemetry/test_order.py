"""Telemetry starts before whoever reports to it and stops after them, so that no last batch is
lost.
"""

from __future__ import annotations

from pathlib import Path

from penstock.stack import ports
from penstock.stack.plan import StackPlan


def test_telemetry_starts_before_all_who_report_to_it_and_so_stops_after_them(
    tmp_path: Path,
) -> None:
    plan = StackPlan(ports.documented(), tmp_path, tmp_path, tmp_path / "penstock.yaml", "token")
    order = [program for stage in plan.stages() for program in stage]
    place = [program.name for program in order].index("telemetry")
    reporting = [
        at for at, program in enumerate(order) if program.env.get("PENSTOCK_OTLP_ENDPOINT")
    ]
    assert reporting and min(reporting) > place, "the supervisor stops the last started first"
