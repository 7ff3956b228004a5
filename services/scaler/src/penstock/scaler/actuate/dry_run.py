"""An actuator that starts and stops nothing."""

from __future__ import annotations

from penstock.scaler.actuate.actuator import FleetStatus


class DryRun:
    """Assumes that what was decided runs: for KEDA, which acts by itself, and for trials."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    async def status(self) -> FleetStatus:
        return FleetStatus(self._wanted, self._wanted, is_observed=False)

    def on_demand_count(self, wanted: int) -> int:
        return wanted

    async def scale(self, wanted: int) -> None:
        self._wanted = wanted

    async def replace(self, instance: str, remaining_s: float) -> bool:
        return False

    async def close(self) -> None:
        return None
