"""Admission without a limiter: everybody may spend, within the ceiling that each caller sets."""

from __future__ import annotations

from collections.abc import Callable

from penstock.prices.prices import Prices
from penstock.router.admission.output_limit import check_ceiling, output_limit
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import ADMITTED, Admitted, OpenAdmission
from penstock.rpc.call import Call
from penstock.service.current import Current


class CeilingAdmission(OpenAdmission):
    """Holds a call to `max_cost_microusd`, where it has one and its model has a price."""

    def __init__(
        self, prices: Current[Prices], max_output_tokens: Callable[[str], int] = lambda _: 0
    ) -> None:
        """Make the stage.

        Args:
            max_output_tokens: what a model's instances say of its longest answer; 0 for nothing.
        """
        self._prices = prices
        self._max_output_tokens = max_output_tokens

    def admit_now(self, call: Call, request: ResolvedRequest) -> Admitted:
        """Let a call go on; raises the Fault of a ceiling that is too low."""
        if not request.options.HasField("max_cost_microusd"):
            return ADMITTED
        prices, estimate = self._prices.value, request.estimate
        cost = prices.cost_bound_microusd(
            request.model, estimate.input_bound, estimate.output_tokens
        )
        check_ceiling(request.options, cost or 0)
        if estimate.output_tokens or not request.kind.open_ended:
            return ADMITTED
        limit = output_limit(request, prices, self._max_output_tokens(request.model))
        notes = (limit.note,) if limit.note else ()
        return Admitted(notes=notes, max_output_tokens=limit.tokens)

    async def admit(self, call: Call, request: ResolvedRequest) -> Admitted:
        """As `admit_now`."""
        return self.admit_now(call, request)
