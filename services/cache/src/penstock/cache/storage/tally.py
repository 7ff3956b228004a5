"""What was looked up, kept out and saved, by tenant and namespace.

Plain; beyond `MAX_OWNERS` the one seen longest ago is forgotten.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from penstock.rpc.call import Principal
from penstock.tasks.answer_keys import TENANT_SEPARATOR, tenant_of

MAX_OWNERS = 10_000


def belongs(tenant: str, principal: Principal) -> bool:
    """True where a tenant is one that this principal means: its own, any of the organisation for no
    team and tags, any for nobody.
    """
    if not principal.organisation:
        return True
    if principal.team or principal.tags:
        return tenant == tenant_of(principal)
    return tenant.partition(TENANT_SEPARATOR)[0] == principal.organisation


@dataclass
class Sums:
    """Look-ups by rule, refusals by reason, and what hits saved, net of what asking cost."""

    rules: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    saved_microusd: int = 0
    saved_ms: float = 0.0


class Tally:
    """Sums since the start, of all and of each owner."""

    def __init__(self) -> None:
        self.all = Sums()
        self._owners: OrderedDict[tuple[str, str], Sums] = OrderedDict()

    def count(self, tenant: str, namespace: str, rule: str) -> None:
        """A look-up has ended by this rule."""
        for sums in (self.all, self._of(tenant, namespace)):
            sums.rules[rule] += 1

    def refuse(self, tenant: str, namespace: str, reason: str) -> None:
        """An answer was not kept, or taught nothing."""
        for sums in (self.all, self._of(tenant, namespace)):
            sums.refused[reason] += 1

    def saved(self, tenant: str, namespace: str, microusd: int, saved_ms: float) -> None:
        """A look-up saved, or cost, so much."""
        for sums in (self.all, self._of(tenant, namespace)):
            sums.saved_microusd += microusd
            sums.saved_ms += saved_ms

    def _of(self, tenant: str, namespace: str) -> Sums:
        sums = self._owners.setdefault((tenant, namespace), Sums())
        self._owners.move_to_end((tenant, namespace))
        if len(self._owners) > MAX_OWNERS:
            self._owners.popitem(last=False)
        return sums

    def tenants(self, principal: Principal) -> set[str]:
        """The tenants that a principal means and that have been seen."""
        return {tenant for tenant, _ in self._owners if belongs(tenant, principal)}

    def of(self, principal: Principal, namespace: str) -> Sums:
        """The sums of what a principal means; an empty namespace means all of them."""
        if not principal.organisation and not namespace:
            return self.all
        total = Sums()
        for (tenant, name), sums in self._owners.items():
            if belongs(tenant, principal) and namespace in ("", name):
                total.rules.update(sums.rules)
                total.refused.update(sums.refused)
                total.saved_microusd += sums.saved_microusd
                total.saved_ms += sums.saved_ms
        return total
