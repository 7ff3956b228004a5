"""Which instances exist: registrations and heartbeats, shared with other routers through the store,
served from memory.

The store holds each registration under a key that expires with its lease; every router reads them.
Without the store, memory goes on with what is registered here, and receipts say so.

An instance has one owner: the router at which it registered names its own batcher in the
registration, and every other router calls the instance there, so that one queue orders all its
calls. An instance whose owner has gone sends its next heartbeat to another router, is told to
register again, and is that router's from then on.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Sequence, Set

import redis.asyncio
from google.protobuf.message import DecodeError
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.router.instances.cold_start_queue import ColdStartQueue
from penstock.router.instances.shared_instances import SharedInstances
from penstock.router.routing.fleet import Fleet, Learning, Member
from penstock.router.routing.strategies import STRATEGIES
from penstock.router.routing.strategy import Strategy
from penstock.router.settings import RouterSettings
from penstock.service.clock import Clock
from penstock.service.work_stream import LOST

log = logging.getLogger(__name__)

LEARNING = Learning(
    forget_services=60.0,
    explore_services=180.0,
    explore_min_s=9.0,
    calm_band=0.25,
    fade_min_s=0.25,
)
"""How a serving router learns; the benchmark `routing` measures this very choice."""


class Registry:
    """The instances with their registrations and leases, and a fleet with its strategy for each
    model. Owner of every Member, Fleet and Strategy.
    """

    def __init__(
        self, settings: RouterSettings, store: redis.asyncio.Redis | None, clock: Clock
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.members: dict[str, Member] = {}
        self.fleets: dict[str, Fleet] = {}
        self.strategies: dict[str, Strategy] = {}
        """By model, as `fleets`."""
        self.registered: dict[str, router_pb2.Instance] = {}
        self._lease_until: dict[str, float] = {}
        self._heard_at: dict[str, float] = {}
        self.since: dict[str, float] = {}
        """When each instance came."""
        self._shared_instances: SharedInstances | None = None
        if store is not None:
            name = secrets.token_hex(8)
            self._shared_instances = SharedInstances(store, name, settings.lease_ms)
        self._routers = 1
        self._gone: set[str] = set()
        self._owned: set[str] = set()
        """Instances that registered here, and at no other router since."""
        self._renewed: set[str] = set()
        """Those that sent a heartbeat since the leases were last shared."""
        self._unshared: set[str] = set()
        """Those whose registration the store does not have: it is written with their next
        heartbeat, which one that has deregistered elsewhere does not send.
        """
        self._vanished: set[str] = set()
        """Those that were taken for deregistered, since the store had lost them and they send no
        heartbeats here.
        """
        self.shared = store is not None
        self._is_read = store is None
        self._complete_at_s = clock.monotonic() + settings.lease_ms / 1e3
        self.cold_starts = ColdStartQueue(clock)

    @property
    def is_complete(self) -> bool:
        """Whether a model that is not known here is served by nobody: false in a router that has
        just started and has not been able to read what others know, until every instance has had
        time to call.
        """
        return self._is_read or self._clock.monotonic() >= self._complete_at_s

    def notes(self) -> tuple[str, ...]:
        """What receipts should say of the registry."""
        return () if self.shared else ("registry not shared: the store is unavailable",)

    async def register(self, instance: router_pb2.Instance) -> None:
        """Add an instance, with this router's batcher where it names none; one that registers again
        after a restart starts as a newcomer.
        """
        owned = router_pb2.Instance()
        owned.CopyFrom(instance)
        owned.batcher_address = instance.batcher_address or self._settings.batcher_address
        self._owned.add(instance.id)
        self._adopt(owned, fresh=True)
        await self._share(owned, fresh=True)

    async def heartbeat(
        self,
        instance_id: str,
        load: common_pb2.LoadReport,
        models: Sequence[inference_pb2.Model] = (),
    ) -> bool:
        """Renew a lease, and take in the models where they have changed; False where the instance
        did not register here, or has registered elsewhere since.
        """
        known = self.members.get(instance_id)
        if known is None or not self.owns(instance_id):
            return False
        now = self._heard_at[instance_id] = self._clock.monotonic()
        self._lease_until[instance_id] = now + self._settings.lease_ms / 1e3
        if known.lost:
            known.lost = False
            self.cold_starts.arrived(model.name for model in self.registered[instance_id].models)
        known.report(load.in_flight, load.concurrency, load.utilization, now)
        if models:
            changed = router_pb2.Instance()
            changed.CopyFrom(self.registered[instance_id])
            del changed.models[:]
            changed.models.extend(models)
            self.registered[instance_id] = changed
            self._place(known, _ready(changed))
        if models or instance_id in self._unshared:
            await self._share(self.registered[instance_id])
        self._renewed.add(instance_id)
        return True

    async def drain(self, instance_id: str, deregister: bool) -> int | None:
        """Send nothing more there; returns the requests in flight, None where the instance is not
        known.
        """
        known = self.members.get(instance_id)
        if known is None:
            return None
        known.leaving, known.settled = True, False
        await self._share_drain(instance_id, deregister)
        if deregister and not known.own:
            self._forget(instance_id)
        return known.own

    def owns(self, instance_id: str) -> bool:
        """Whether the instance registered here, and at no other router since."""
        return instance_id in self._owned

    def lease_left_s(self, instance_id: str) -> float:
        """Seconds that its lease has left; 0 for none."""
        return max(0.0, self._lease_until.get(instance_id, 0.0) - self._clock.monotonic())

    def next_loss_s(self) -> float:
        """When the next lease ends unless it is renewed, in monotonic seconds; infinite for none of
        an instance that is not lost yet.
        """
        ends = (end for name, end in self._lease_until.items() if not self.members[name].lost)
        return min(ends, default=math.inf)

    def serving(self, model: str) -> int:
        """Instances that may be given work for the model."""
        fleet = self.fleets.get(model)
        members = fleet.members if fleet is not None else ()
        return sum(not (member.lost or member.leaving) for member in members)

    def sweep(self) -> list[str]:
        """Mark instances whose lease has run out as lost and forget those that have gone; returns
        all that were forgotten since the last sweep, by it or because they deregistered.
        """
        now = self._clock.monotonic()
        for instance_id, until in list(self._lease_until.items()):
            known = self.members[instance_id]
            if now <= until:
                continue
            if not known.lost:
                silent_ms = self._settings.lease_ms
                log.warning("instance %s is lost: no heartbeat for %d ms", instance_id, silent_ms)
            known.lost, known.settled = True, False
            if not known.own and now > until + 10 * self._settings.lease_ms / 1e3:
                self._forget(instance_id)
        gone, self._gone = self._gone, set()
        return sorted(gone - self.members.keys())

    async def read_shared(self) -> None:
        """Share the leases that were renewed since the last time; adopt what other routers have
        registered, and who waits there.

        A failure is logged once; memory goes on.
        """
        if self._shared_instances is None:
            return
        renewed = [each for each in self._renewed if self.owns(each)]
        self._renewed.clear()
        try:
            view = await self._shared_instances.exchange(self.cold_starts, renewed)
        except LOST:
            self._note(False)
            self.cold_starts.forget_others()
            return
        self._note(True)
        self._is_read = True
        self._routers = view.routers
        for fleet in self.fleets.values():
            fleet.routers = view.routers
        for name, value in view.registrations.items():
            self._adopt_shared(name, value)
        self._drain_as_elsewhere(view.draining, view.registrations.keys())
        self._unshared.update(view.missing)

    def _drain_as_elsewhere(self, draining: Set[str], names: Set[str]) -> None:
        """Stop sending to what another router drains, and to what was deregistered there and sends
        no heartbeats here; begin again where the store had only lost it for a time.
        """
        now = self._clock.monotonic()
        for instance_id, member in self.members.items():
            silent_s = now - self._heard_at.get(instance_id, -math.inf)
            silent = silent_s > self._settings.lease_ms / 1e3
            if instance_id in names and instance_id in self._vanished:
                self._vanished.discard(instance_id)
                member.leaving = False
            if instance_id not in names and silent:
                self._vanished.add(instance_id)
            if instance_id in draining or instance_id in self._vanished:
                member.leaving, member.settled = True, False

    def _adopt_shared(self, name: str, value: bytes | str) -> None:
        try:
            instance = router_pb2.Instance.FromString(
                value if isinstance(value, bytes) else value.encode()
            )
        except DecodeError:
            log.error("the shared registration of %s cannot be read", name)
            return
        if self.registered.get(name) == instance:
            self._lease_until[name] = self._clock.monotonic() + self._settings.lease_ms / 1e3
            self.members[name].lost = False
        else:
            self._owned.discard(name)
            self._adopt(instance, fresh=False)

    def _adopt(self, instance: router_pb2.Instance, fresh: bool) -> None:
        known, now = self.members.get(instance.id), self._clock.monotonic()
        if known is None:
            known = self.members[instance.id] = Member(instance.id, instance.concurrency, now)
            self.since[instance.id] = now
        elif fresh:
            known.renew(now)
            self.since[instance.id] = now
        known.concurrency = max(1, instance.concurrency)
        known.leaving = known.lost = False
        self.registered[instance.id] = instance
        self._lease_until[instance.id] = now + self._settings.lease_ms / 1e3
        if fresh:
            self._heard_at[instance.id] = now
        self._place(known, _ready(instance))

    def _place(self, member: Member, models: set[str]) -> None:
        """Put a member into the fleets of its models, and out of all others."""
        for model in models - self.fleets.keys():
            self.fleets[model] = Fleet(LEARNING, routers=self._routers)
            self.strategies[model] = STRATEGIES[self._settings.strategy]()
        for model, fleet in list(self.fleets.items()):
            others = [item for item in fleet.members if item.id != member.id]
            fleet.members = (
                sorted([*others, member], key=lambda item: item.id) if model in models else others
            )
            fleet.forget_refresh()
            if not fleet.members:
                del self.fleets[model], self.strategies[model]
        self.cold_starts.arrived(models)

    def _forget(self, instance_id: str) -> None:
        member = self.members.get(instance_id)
        if member is not None:
            member.lost = True
            self._place(member, set())
        for table in (self.members, self.registered, self._lease_until, self._heard_at, self.since):
            table.pop(instance_id, None)
        for ids in (self._owned, self._renewed, self._unshared, self._vanished):
            ids.discard(instance_id)
        self._gone.add(instance_id)

    async def _share(self, instance: router_pb2.Instance, fresh: bool = False) -> None:
        if self._shared_instances is None:
            return
        try:
            await self._shared_instances.write(instance, fresh=fresh)
            self._unshared.discard(instance.id)
        except LOST:
            self._unshared.add(instance.id)
            self._note(False)

    async def _share_drain(self, instance_id: str, deregister: bool) -> None:
        if self._shared_instances is None:
            return
        try:
            await self._shared_instances.drain(instance_id, deregister=deregister)
        except LOST:
            self._note(False)

    def _note(self, shared: bool) -> None:
        if self.shared and not shared:
            log.warning(
                "the store is unavailable; the registry goes on in memory and is not shared"
            )
        elif shared and not self.shared:
            log.info("the store is back; the registry is shared again")
        self.shared = shared


def _ready(instance: router_pb2.Instance) -> set[str]:
    return {
        model.name for model in instance.models if model.state == inference_pb2.MODEL_STATE_READY
    }
