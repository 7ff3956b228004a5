"""EC2 as a provider of spot machines (boto3, extra `aws`): launches from a launch template, by zone
and instance type, and spot prices.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.scaler.actuate.aws import AwsError, call_aws, open_client
from penstock.scaler.actuator_settings import AwsSpotActuator
from penstock.scaler.spot.offerings import Offering
from penstock.scaler.spot.provider import Machine
from penstock.service.clock import Clock

NO_CAPACITY_CODES = (
    "InsufficientInstanceCapacity",
    "SpotMaxPriceTooLow",
    "MaxSpotInstanceCountExceeded",
    "UnfulfillableCapacity",
)
POOL_TAG = "penstock-pool"
PRICES_EVERY_S = 300.0
PRICE_HISTORY = datetime.timedelta(hours=1)


def ec2_offerings(config: AwsSpotActuator) -> list[Offering]:
    """Return an offering for each zone and each instance type that spot may use."""
    return [
        Offering(
            name=_offering_name(zone, instance_type),
            failure_domain=failure_domain,
            zone=zone,
            instance_type=instance_type if config.more_types else "",
            capacity=capacity,
        )
        for zone, failure_domain in config.zones.items()
        for instance_type, capacity in config.capacities.items()
    ]


class Ec2SpotProvider:
    """EC2; see `SpotProvider`.

    A machine that runs counts as serving; it registers with the router by itself.

    Args:
        pool: value of the tag that marks this pool's machines.
        client: a boto3 `ec2` client; None makes one from the usual AWS environment.
    """

    def __init__(
        self, pool: str, config: AwsSpotActuator, clock: Clock, client: Any = None
    ) -> None:
        self._pool = pool
        self._config = config
        self._clock = clock
        self._client = client or open_client("ec2", config.region)
        self._prices: dict[str, float] = {}
        self._priced_at_s = -math.inf

    async def machines(self) -> list[Machine]:
        filters = [
            {"Name": f"tag:{POOL_TAG}", "Values": [self._pool]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        answer = await call_aws(self._client.describe_instances, Filters=filters)
        rows = [row for group in answer["Reservations"] for row in group["Instances"]]
        rows.sort(key=lambda row: (row["LaunchTime"], row["InstanceId"]))
        return [
            Machine(row["InstanceId"], _offering_of(row), row["State"]["Name"] == "running")
            for row in rows
        ]

    async def prices(self) -> Mapping[str, float]:
        """Return the prices by offering, read again after five minutes."""
        now_s = self._clock.monotonic()
        if now_s - self._priced_at_s >= PRICES_EVERY_S:
            now = datetime.datetime.fromtimestamp(self._clock.time(), datetime.UTC)
            capacities, on_demand_price = self._config.capacities, self._config.on_demand_price
            dollars = await spot_prices(self._client, list(capacities), now)
            self._prices = {
                _offering_name(zone, instance_type): price
                / capacities[instance_type]
                / on_demand_price
                for (zone, instance_type), price in dollars.items()
            }
            self._priced_at_s = now_s
        return self._prices

    async def launch(self, offering: str) -> bool:
        try:
            await call_aws(self._client.run_instances, **self._launch_arguments(offering))
        except AwsError as error:
            if error.code in NO_CAPACITY_CODES:
                return False
            raise
        return True

    async def terminate(self, machine: str) -> None:
        await call_aws(self._client.terminate_instances, InstanceIds=[machine])

    def _launch_arguments(self, offering: str) -> dict[str, object]:
        zone, _, instance_type = offering.partition("/")
        tags = [{"Key": POOL_TAG, "Value": self._pool}]
        arguments: dict[str, object] = {
            "LaunchTemplate": {"LaunchTemplateName": self._config.launch_template},
            "InstanceType": instance_type or self._config.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        if offering:
            arguments["Placement"] = {"AvailabilityZone": zone}
            arguments["InstanceMarketOptions"] = {"MarketType": "spot"}
        return arguments


async def spot_prices(
    client: Any, instance_types: Sequence[str], now: datetime.datetime
) -> dict[tuple[str, str], float]:
    """Return dollars an hour of a spot machine by (zone, instance type), the newest of an hour.

    Args:
        client: a boto3 `ec2` client.

    Raises:
        AwsError: AWS refused or cannot be reached.
    """
    answer = await call_aws(
        client.describe_spot_price_history,
        InstanceTypes=list(instance_types),
        ProductDescriptions=["Linux/UNIX"],
        StartTime=now - PRICE_HISTORY,
    )
    rows = sorted(answer["SpotPriceHistory"], key=lambda row: row["Timestamp"])
    return {(row["AvailabilityZone"], row["InstanceType"]): float(row["SpotPrice"]) for row in rows}


def _offering_name(zone: str, instance_type: str) -> str:
    return f"{zone}/{instance_type}"


def _offering_of(row: Mapping[str, Any]) -> str:
    """The name of a machine's offering; empty for one on demand."""
    if row.get("InstanceLifecycle") != "spot":
        return ""
    return _offering_name(row["Placement"]["AvailabilityZone"], row["InstanceType"])
