"""AWS by boto3 (extra `aws`): Auto Scaling groups, one on demand and one on spot."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from penstock.scaler.actuate.actuator import Drain, FleetStatus, wait_for_replacement
from penstock.scaler.actuator_settings import AwsActuator
from penstock.service.clock import Clock
from penstock.service.program import CannotStart

log = logging.getLogger(__name__)


class AwsError(OSError):
    """AWS refused a call or cannot be reached. `code`: its error code; empty where it has none."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class AutoScalingGroups:
    """Sets the desired capacity of Auto Scaling groups; see `Actuator`.

    A group starts and stops its machines, and its lifecycle hooks drain those that it stops.
    Instances must register at the router under their EC2 id, so that one with a notice is drained.

    Args:
        drain: called before a machine with a notice is terminated.
        scaling_client, ec2_client: boto3 clients; None makes them from the usual AWS environment.
    """

    def __init__(
        self,
        config: AwsActuator,
        clock: Clock,
        drain: Drain | None = None,
        scaling_client: Any = None,
        ec2_client: Any = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._drain = drain
        self._scaling = scaling_client or open_client("autoscaling", config.region)
        self._ec2 = ec2_client or open_client("ec2", config.region)
        self._terminating: set[asyncio.Task[None]] = set()

    @property
    def _groups(self) -> list[str]:
        return [name for name in (self._config.group, self._config.spot_group) if name]

    async def status(self) -> FleetStatus:
        answer = await call_aws(
            self._scaling.describe_auto_scaling_groups, AutoScalingGroupNames=self._groups
        )
        groups = answer["AutoScalingGroups"]
        if len(groups) != len(self._groups):
            raise AwsError(f"aws: there is no Auto Scaling group {' or '.join(self._groups)}")
        ready = sum(
            machine["LifecycleState"] == "InService"
            for group in groups
            for machine in group["Instances"]
        )
        return FleetStatus(sum(group["DesiredCapacity"] for group in groups), ready)

    async def scale(self, wanted: int) -> None:
        on_demand = self.on_demand_count(wanted)
        sizes = [on_demand, wanted - on_demand] if self._config.spot_group else [wanted]
        for name, size in zip(self._groups, sizes, strict=True):
            await call_aws(
                self._scaling.set_desired_capacity,
                AutoScalingGroupName=name,
                DesiredCapacity=size,
                HonorCooldown=False,
            )

    def on_demand_count(self, wanted: int) -> int:
        if not self._config.spot_group:
            return wanted
        return min(wanted, self._config.on_demand_base)

    async def replace(self, instance: str, remaining_s: float) -> bool:
        """Detach a machine from its group, which then starts another in its place.

        The machine serves until it is drained, and is terminated after that.
        """
        answer = await call_aws(
            self._scaling.describe_auto_scaling_instances, InstanceIds=[instance]
        )
        groups = [row["AutoScalingGroupName"] for row in answer["AutoScalingInstances"]]
        if not groups or groups[0] not in self._groups:
            return False
        await call_aws(
            self._scaling.detach_instances,
            InstanceIds=[instance],
            AutoScalingGroupName=groups[0],
            ShouldDecrementDesiredCapacity=False,
        )
        work = self._terminate(instance, remaining_s)
        task = asyncio.create_task(work, name=f"terminate {instance}")
        self._terminating.add(task)
        task.add_done_callback(self._terminating.discard)
        return True

    async def _terminate(self, instance: str, remaining_s: float) -> None:
        try:
            await wait_for_replacement(self._all_serve, self._clock, remaining_s)
            if self._drain is not None:
                await self._drain(instance, "spot_notice")
            await call_aws(self._ec2.terminate_instances, InstanceIds=[instance])
        except OSError as error:
            log.warning("%s is detached from its group but not terminated: %s", instance, error)

    async def _all_serve(self) -> bool:
        status = await self.status()
        return status.ready >= status.wanted

    async def close(self) -> None:
        """Wait until detached machines are terminated: nobody else would terminate them."""
        await asyncio.gather(*self._terminating)


async def call_aws(method: Any, **arguments: object) -> Any:
    """Call a method of a boto3 client, in a thread.

    Raises:
        AwsError: AWS refused or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return await asyncio.to_thread(method, **arguments)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise AwsError(f"aws: {error}", code) from error
    except BotoCoreError as error:
        raise AwsError(f"aws: {error}") from error


def open_client(service: str, region: str) -> Any:
    """Return a boto3 client; an empty region means that of the AWS environment.

    Raises:
        CannotStart: boto3 is not installed.
    """
    try:
        import boto3
    except ImportError:
        raise CannotStart("the aws actuator needs boto3: install penstock-scaler[aws]") from None
    return boto3.client(service, **({"region_name": region} if region else {}))
