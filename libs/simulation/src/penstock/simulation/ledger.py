"""One organisation's ledger in virtual time: the limiter's own script on a model of the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.limiter.decisions import Reservation, Ruling
from penstock.limiter.rules import Counter, organisation_prefix
from penstock.limiter.script import SCRIPT, Rows, arguments, reserved, to_reserve
from penstock.simulation.store_model import StoreModel

LEDGER_KEPT = 1_000


class SimulatedLedger:
    """Reserves and settles by `ledger.lua`; time is an argument, Unix microseconds, and never runs
    backwards.
    """

    def __init__(self, organisation: str) -> None:
        self._prefix = organisation_prefix(organisation)
        self._model = StoreModel()

    def reserve(
        self, now_us: int, hold_id: str, path: Sequence[Counter], ask: Reservation
    ) -> Ruling:
        """Hold what a call may cost, on every counter of its path or on none."""
        return reserved(self._run(now_us, "reserve", to_reserve(hold_id, path, ask)))

    def settle(
        self, now_us: int, hold_id: str, spent: Sequence[int], path: Sequence[Counter] = ()
    ) -> bool:
        """Book what a hold has really cost; False where it had ended before or is not known."""
        found = self._run(now_us, "settle", arguments(hold_id, list(spent), Rows(path)))
        return bool(found[0] > 0)

    def _run(self, now_us: int, operation: str, text: str) -> list[Any]:
        self._model.now_ms = now_us // 1000
        given = (operation, now_us, self._prefix, text, LEDGER_KEPT)
        return self._model.eval(SCRIPT, [f"{self._prefix}holds"], given)
