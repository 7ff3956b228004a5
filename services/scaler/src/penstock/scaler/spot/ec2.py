"""EC2 as a provider of spot machines (boto3, extra `aws`): launches from a launch template by zone
and type, and prices of both.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

from penstock.scaler.actuate.aws import AwsPrices, ask, open_client
from penstock.scaler.settings import AwsSpotActuator
from penstock.scaler.spot.fleet import Machine
from penstock.scaler.spot.offerings import Offering
from penstock.service.clock import Clock

NO_ROOM = (
    "InsufficientInstanceCapacity",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
    "UnfulfillableCapacity",
)
POOL_TAG = "penstock-pool"
PRICES_S = 300.0
SERVES = "running"


def places(config: AwsSpotActuator) -> list[Offering]:
    """Every zone with every type that spot may use."""
    return [
        Offering(_place(zone, kind), domain, zone, kind if config.more_types else "", capacity)
        for zone, domain in config.zones.items()
        for kind, capacity in config.capacities.items()
    ]


class Ec2SpotProvider:
    """See SpotProvider.

    A machine that runs counts as serving; it registers with the router by itself.

    Args:
        pool: tag that marks this pool's machines.
        client: an `ec2` client; None makes one from the usual AWS environment.
    """

    def __init__(
        self, pool: str, config: AwsSpotActuator, clock: Clock, client: Any = None
    ) -> None:
        self._pool, self._config, self._clock = pool, config, clock
        self._client = client if client is not None else open_client("ec2", config.region)
        self._prices = AwsPrices(list(config.capacities), config.region, self._client)
        self._known: dict[str, float] = {}
        self._priced_at = float("-inf")

    async def machines(self) -> list[Machine]:
        filters = [
            {"Name": f"tag:{POOL_TAG}", "Values": [self._pool]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        answer = await asyncio.to_thread(ask, self._client.describe_instances, {"Filters": filters})
        rows = [row for group in answer["Reservations"] for row in group["Instances"]]
        rows.sort(key=lambda row: (row["LaunchTime"], row["InstanceId"]))
        return [
            Machine(row["InstanceId"], _where(row), row["State"]["Name"] == SERVES) for row in rows
        ]

    async def prices(self) -> Mapping[str, float]:
        now = self._clock.monotonic()
        if now - self._priced_at >= PRICES_S:
            latest = await self._prices.latest(
                datetime.datetime.fromtimestamp(self._clock.time(), datetime.UTC)
            )
            sizes, one = self._config.capacities, self._config.on_demand_price
            self._known = {
                _place(zone, kind): price / sizes[kind] / one
                for (zone, kind), price in latest.items()
            }
            self._priced_at = now
        return self._known

    async def launch(self, zone: str) -> bool:
        where, _, kind = zone.partition("/")
        tags = [{"ResourceType": "instance", "Tags": [{"Key": POOL_TAG, "Value": self._pool}]}]
        words: dict[str, object] = {
            "LaunchTemplate": {"LaunchTemplateName": self._config.launch_template},
            "InstanceType": kind or self._config.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": tags,
        }
        if zone:
            words |= {
                "Placement": {"AvailabilityZone": where},
                "InstanceMarketOptions": {"MarketType": "spot"},
            }
        try:
            await asyncio.to_thread(ask, self._client.run_instances, words)
        except OSError as error:
            if any(code in str(error) for code in NO_ROOM):
                return False
            raise
        return True

    async def end(self, machine: str) -> None:
        await asyncio.to_thread(ask, self._client.terminate_instances, {"InstanceIds": [machine]})


def _place(zone: str, kind: str) -> str:
    return f"{zone}/{kind}"


def _where(row: Mapping[str, Any]) -> str:
    """The place of a spot machine; empty for one on demand."""
    spot = row.get("InstanceLifecycle") == "spot"
    return _place(row["Placement"]["AvailabilityZone"], row["InstanceType"]) if spot else ""
