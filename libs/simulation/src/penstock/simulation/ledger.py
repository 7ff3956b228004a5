"""One organisation's ledger in virtual time: the limiter's own script on a model of the store."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.limiter.counters import Amounts, Counter, organisation_prefix
from penstock.limiter.script import (
    SCRIPT,
    PathRows,
    Reservation,
    Ruling,
    ScriptReply,
    parse_reserved,
    parse_settled,
    reserve_arguments,
    to_json,
)
from penstock.simulation.store_model import StoreModel

MAX_LEDGER_BYTES = 300_000


class SimulatedLedger:
    """Reserves and settles by the ledger script.

    Time is an argument, Unix microseconds, and must not run backwards.
    """

    def __init__(self, organisation: str) -> None:
        self._prefix = organisation_prefix(organisation)
        self._store = StoreModel()

    def reserve(
        self, now_us: int, hold_id: str, path: Sequence[Counter], reservation: Reservation
    ) -> Ruling:
        """Hold what a call may cost, on every counter of its path or on none."""
        arguments = reserve_arguments(hold_id, path, reservation)
        return parse_reserved(self._run(now_us, "reserve", arguments))

    def settle(
        self, now_us: int, hold_id: str, spent: Amounts, path: Sequence[Counter] = ()
    ) -> bool:
        """Book what a hold has really cost; False if it had ended before or is not known."""
        arguments = to_json(hold_id, spent, PathRows(path), 0)
        return parse_settled(self._run(now_us, "settle", arguments)).was_open

    def _run(self, now_us: int, operation: str, arguments: str) -> ScriptReply:
        self._store.now_ms = now_us // 1000
        parameters = (operation, now_us, self._prefix, arguments, MAX_LEDGER_BYTES)
        return self._store.eval(SCRIPT, [f"{self._prefix}holds"], parameters)
