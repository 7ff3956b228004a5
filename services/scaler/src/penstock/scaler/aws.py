"""AWS by boto3 (extra `aws`): wanted sizes of Auto Scaling groups, one on demand and one on spot, and prices of spot capacity."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from penstock.core.program import CannotStart
from penstock.scaler.actuators import Fleet
from penstock.scaler.config import AwsActuator

SERVES = "InService"


class AutoScalingGroups:
    """Sets the wanted capacity; the group starts and ends machines, its lifecycle hooks drain them.

    Args:
        client: an `autoscaling` client; None makes one from the usual AWS environment.
    """

    def __init__(self, config: AwsActuator, client: Any = None) -> None:
        self._config = config
        self._client = client if client is not None else open_client("autoscaling", config.region)

    @property
    def _groups(self) -> list[str]:
        return [name for name in (self._config.group, self._config.spot_group) if name]

    async def fleet(self) -> Fleet:
        answer = await self._ask("describe_auto_scaling_groups", AutoScalingGroupNames=self._groups)
        found = answer["AutoScalingGroups"]
        if len(found) != len(self._groups):
            raise OSError(f"aws: there is no Auto Scaling group {' or '.join(self._groups)}")
        serving = sum(row["LifecycleState"] == SERVES for group in found for row in group["Instances"])
        return Fleet(sum(group["DesiredCapacity"] for group in found), serving)

    async def scale(self, wanted: int, on_demand: int) -> None:
        split = [on_demand, wanted - on_demand] if self._config.spot_group else [wanted]
        for name, size in zip(self._groups, split, strict=True):
            await self._ask(
                "set_desired_capacity", AutoScalingGroupName=name, DesiredCapacity=size, HonorCooldown=False
            )

    async def replace(self, instance: str) -> bool:
        """End one machine without making the group smaller: it starts another."""
        try:
            await self._ask(
                "terminate_instance_in_auto_scaling_group", InstanceId=instance, ShouldDecrementDesiredCapacity=False
            )
        except OSError:
            return False
        return True

    async def close(self) -> None:
        return None

    async def _ask(self, method: str, **words: object) -> Any:
        return await asyncio.to_thread(ask, getattr(self._client, method), words)


class AwsPrices:
    """Spot prices by zone, for a `SpotProvider`'s forecasts; `client` is an `ec2` client."""

    def __init__(self, instance_type: str, region: str = "", client: Any = None) -> None:
        self._type = instance_type
        self._client = client if client is not None else open_client("ec2", region)

    async def latest(self, now: datetime.datetime) -> dict[str, float]:
        """Dollars an hour by zone, the newest of the last hour."""
        answer = await asyncio.to_thread(
            ask,
            self._client.describe_spot_price_history,
            {
                "InstanceTypes": [self._type],
                "ProductDescriptions": ["Linux/UNIX"],
                "StartTime": now - datetime.timedelta(hours=1),
            },
        )
        rows = sorted(answer["SpotPriceHistory"], key=lambda row: row["Timestamp"])
        return {row["AvailabilityZone"]: float(row["SpotPrice"]) for row in rows}


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
