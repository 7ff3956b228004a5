"""AWS by boto3 (extra `aws`): wanted sizes of Auto Scaling groups, one on demand and one on spot,
and prices of spot capacity.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Sequence
from typing import Any

from penstock.scaler.actuate.actuator import Drain, FleetStatus, await_replacement
from penstock.scaler.settings import AwsActuator
from penstock.service.clock import Clock
from penstock.service.program import CannotStart

log = logging.getLogger(__name__)
SERVES = "InService"


class AutoScalingGroups:
    """Sets the wanted capacity; the group starts and ends machines, its lifecycle hooks drain those
    that it ends.

    Instances must register at the router under their EC2 id, so that one with a notice is drained.

    Args:
        client: an `autoscaling` client, `machines` an `ec2` client; None makes them from the usual
            AWS environment.
        drain: asked before a machine with a notice is ended.
    """

    def __init__(
        self,
        config: AwsActuator,
        clock: Clock,
        drain: Drain | None = None,
        client: Any = None,
        machines: Any = None,
    ) -> None:
        self._config, self._clock, self._drain = config, clock, drain
        self._client = client if client is not None else open_client("autoscaling", config.region)
        self._machines = machines if machines is not None else open_client("ec2", config.region)
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def _groups(self) -> list[str]:
        return [name for name in (self._config.group, self._config.spot_group) if name]

    async def fleet(self) -> FleetStatus:
        answer = await self._ask("describe_auto_scaling_groups", AutoScalingGroupNames=self._groups)
        found = answer["AutoScalingGroups"]
        if len(found) != len(self._groups):
            raise OSError(f"aws: there is no Auto Scaling group {' or '.join(self._groups)}")
        serving = sum(
            row["LifecycleState"] == SERVES for group in found for row in group["Instances"]
        )
        return FleetStatus(sum(group["DesiredCapacity"] for group in found), serving)

    async def scale(self, wanted: int) -> None:
        on_demand = self.on_demand(wanted)
        split = [on_demand, wanted - on_demand] if self._config.spot_group else [wanted]
        for name, size in zip(self._groups, split, strict=True):
            await self._ask(
                "set_desired_capacity",
                AutoScalingGroupName=name,
                DesiredCapacity=size,
                HonorCooldown=False,
            )

    def on_demand(self, wanted: int) -> int:
        return min(wanted, self._config.base) if self._config.spot_group else wanted

    async def replace(self, instance: str, left_s: float) -> bool:
        """Take one machine out of its group without making that smaller: it starts another.

        The machine serves on until it is drained.
        """
        found = await self._ask("describe_auto_scaling_instances", InstanceIds=[instance])
        groups = [row["AutoScalingGroupName"] for row in found["AutoScalingInstances"]]
        if not groups or groups[0] not in self._groups:
            return False
        await self._ask(
            "detach_instances",
            InstanceIds=[instance],
            AutoScalingGroupName=groups[0],
            ShouldDecrementDesiredCapacity=False,
        )
        task = asyncio.create_task(self._end(instance, left_s), name=f"end {instance}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    async def _end(self, instance: str, left_s: float) -> None:
        try:
            await await_replacement(self._full, self._clock, left_s)
            if self._drain is not None:
                await self._drain(instance, "spot_notice")
            await asyncio.to_thread(
                ask, self._machines.terminate_instances, {"InstanceIds": [instance]}
            )
        except OSError as error:
            log.warning("%s was taken out of its group and is not ended: %s", instance, error)

    async def _full(self) -> bool:
        fleet = await self.fleet()
        return fleet.ready >= fleet.wanted

    async def close(self) -> None:
        """Wait until machines that leave are drained and ended: nobody else would end them."""
        await asyncio.gather(*self._leaving)

    async def _ask(self, method: str, **words: object) -> Any:
        return await asyncio.to_thread(ask, getattr(self._client, method), words)


class AwsPrices:
    """Spot prices by zone and type, for a `SpotProvider`'s forecasts; `client` is an `ec2`
    client.
    """

    def __init__(self, types: Sequence[str], region: str = "", client: Any = None) -> None:
        self._types = list(types)
        self._client = client if client is not None else open_client("ec2", region)

    async def latest(self, now: datetime.datetime) -> dict[tuple[str, str], float]:
        """Dollars an hour of a machine by (zone, type), the newest of the last hour."""
        answer = await asyncio.to_thread(
            ask,
            self._client.describe_spot_price_history,
            {
                "InstanceTypes": self._types,
                "ProductDescriptions": ["Linux/UNIX"],
                "StartTime": now - datetime.timedelta(hours=1),
            },
        )
        rows = sorted(answer["SpotPriceHistory"], key=lambda row: row["Timestamp"])
        return {
            (row["AvailabilityZone"], row["InstanceType"]): float(row["SpotPrice"]) for row in rows
        }


def ask(method: Any, words: dict[str, object]) -> Any:
    """Call boto3; blocks, so it belongs into a thread.

    Raises:
        OSError: AWS refused or cannot be reached; the text holds its error code.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return method(**words)
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"aws: {error}") from error


def open_client(service: str, region: str) -> Any:
    """A boto3 client; CannotStart where boto3 is not installed."""
    try:
        import boto3
    except ImportError:
        raise CannotStart("the aws actuator needs boto3: install penstock-scaler[aws]") from None
    return boto3.client(service, **({"region_name": region} if region else {}))
