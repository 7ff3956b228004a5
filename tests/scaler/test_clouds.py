"""Actuators of clouds: AWS against moto, Kubernetes through its official client against an API
server of this test.
"""

from __future__ import annotations

import datetime
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from kubernetes import client
from moto import mock_aws
from penstock.scaler.actuate.actuator import FleetStatus
from penstock.scaler.actuate.aws import AutoScalingGroups
from penstock.scaler.actuate.kubernetes import KubernetesScale
from penstock.scaler.actuator_settings import AwsActuator, AwsSpotActuator, KubernetesActuator
from penstock.scaler.spot.ec2 import Ec2SpotProvider, ec2_offerings, spot_prices
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.scaler.spot.provider import Machine
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock
from penstock.testkit.eventually import eventually

REGION = "eu-central-1"


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        scaling = boto3.client("autoscaling", region_name=REGION)
        scaling.create_launch_configuration(
            LaunchConfigurationName="lc", ImageId="ami-1", InstanceType="t3.micro"
        )
        for name in ("steady", "spot"):
            scaling.create_auto_scaling_group(
                AutoScalingGroupName=name,
                LaunchConfigurationName="lc",
                MinSize=0,
                MaxSize=9,
                DesiredCapacity=1,
                AvailabilityZones=[f"{REGION}a"],
            )
        yield scaling


async def test_the_base_runs_on_demand_and_the_rest_on_spot(groups: Any) -> None:
    config = AwsActuator(
        kind="aws", group="steady", spot_group="spot", on_demand_base=2, region=REGION
    )
    fleet = AutoScalingGroups(config, SystemClock(), None, groups)
    assert await fleet.status() == FleetStatus(2, 2)
    await fleet.scale(5)
    assert fleet.on_demand_count(5) == 2
    sizes = {
        row["AutoScalingGroupName"]: row["DesiredCapacity"]
        for row in groups.describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    assert sizes == {"steady": 2, "spot": 3}


async def test_a_machine_with_a_notice_is_replaced_by_its_group_and_terminated_once_drained(
    groups: Any,
) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)

    def state(machine: str) -> str:
        row = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
        return str(row["State"]["Name"])

    drained: list[tuple[str, str, int]] = []

    async def drain(machine: str, reason: str) -> None:
        drained.append((reason, state(machine), (await fleet.status()).ready))

    config = AwsActuator(kind="aws", group="steady", region=REGION)
    fleet = AutoScalingGroups(config, SystemClock(), drain, groups, ec2)
    row = groups.describe_auto_scaling_groups(AutoScalingGroupNames=["steady"])[
        "AutoScalingGroups"
    ][0]
    leaving = row["Instances"][0]["InstanceId"]
    assert await fleet.replace(leaving, 120.0)
    await fleet.close()
    assert drained == [("spot_notice", "running", 1)]
    assert state(leaving) == "terminated"
    assert await fleet.status() == FleetStatus(1, 1)
    assert not await fleet.replace("i-0123456789abcdef0", 120.0)


async def test_a_missing_group_is_an_error(groups: Any) -> None:
    fleet = AutoScalingGroups(
        AwsActuator(kind="aws", group="nobody", region=REGION), SystemClock(), None, groups
    )
    with pytest.raises(OSError, match="nobody"):
        await fleet.status()


async def test_spot_prices_are_read_by_zone_and_type(groups: Any) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    now = datetime.datetime.now(datetime.UTC)
    prices = await spot_prices(ec2, ["t3.micro", "t3.small"], now)
    assert all(zone.startswith(REGION) and price > 0 for (zone, _), price in prices.items())
    assert {instance_type for _, instance_type in prices} == {"t3.micro", "t3.small"}


class ApiServer(http.server.BaseHTTPRequestHandler):
    """As much of the Kubernetes API as the scale of one Deployment needs."""

    replicas, ready, patches = 2, 1, 0

    def do_GET(self) -> None:
        known = self.path == "/apis/apps/v1/namespaces/models/deployments/encoder"
        self._answer(200 if known else 404, _deployment())

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/apis/apps/v1/namespaces/models/deployments/encoder/scale"
        ApiServer.replicas, ApiServer.patches = body["spec"]["replicas"], ApiServer.patches + 1
        self._answer(200, {"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": body["spec"]})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


def _deployment() -> dict[str, Any]:
    selector = {"matchLabels": {"app": "encoder"}}
    spec = {"replicas": ApiServer.replicas, "selector": selector, "template": {}}
    return {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "spec": spec,
        "status": {"readyReplicas": ApiServer.ready},
    }


@pytest.fixture
def cluster() -> Iterator[client.AppsV1Api]:
    server = http.server.HTTPServer(("127.0.0.1", 0), ApiServer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    configuration.retries = False
    with client.ApiClient(configuration) as api:
        yield client.AppsV1Api(api)
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_scale_subresource_is_read_and_set(cluster: client.AppsV1Api) -> None:
    fleet = KubernetesScale(
        KubernetesActuator(kind="kubernetes", name="encoder", namespace="models"), cluster
    )
    assert await fleet.status() == FleetStatus(2, 1)
    await fleet.scale(5)
    assert await fleet.status() == FleetStatus(5, 1)
    assert ApiServer.patches == 1


async def test_a_missing_deployment_is_an_error(cluster: client.AppsV1Api) -> None:
    fleet = KubernetesScale(
        KubernetesActuator(kind="kubernetes", name="nobody", namespace="models"), cluster
    )
    with pytest.raises(OSError, match="404"):
        await fleet.status()


ZONES = {f"{REGION}{letter}": letter for letter in "abc"}


@pytest.fixture
def ec2(groups: Any) -> Any:
    """A client of EC2 with the launch template `encoder`."""
    found = boto3.client("ec2", region_name=REGION)
    image = found.describe_images()["Images"][0]["ImageId"]
    template = {"ImageId": image}
    found.create_launch_template(LaunchTemplateName="encoder", LaunchTemplateData=template)
    return found


def spot_config(**changes: Any) -> AwsSpotActuator:
    fields = {
        "kind": "aws_spot",
        "launch_template": "encoder",
        "instance_type": "t3.micro",
        "zones": ZONES,
        "on_demand_price": 0.012,
        "region": REGION,
    }
    return AwsSpotActuator.model_validate({**fields, **changes})


def spot_provider(ec2: Any, config: AwsSpotActuator) -> tuple[Ec2SpotProvider, FakeClock]:
    clock = FakeClock(1_800_000_000.0)
    return Ec2SpotProvider("m", config, clock, ec2), clock


async def test_a_fleet_on_ec2_spot_is_launched_and_replaced(ec2: Any) -> None:
    config = spot_config()
    provider, clock = spot_provider(ec2, config)
    fleet = SpotFleet(provider, ec2_offerings(config), clock, SpotPolicy(overprovision=1))
    await fleet.scale(2)
    machines = await provider.machines()
    assert len({one.offering for one in machines if one.offering}) == 3
    assert all(one.is_serving for one in machines)
    await fleet.status()
    assert await fleet.status() == FleetStatus(2, 2)

    async def machines_without_stand_ins() -> list[Machine]:
        found = await provider.machines()
        assert len(found) == 3
        return found

    # Those on demand are terminated by a task of their own.
    machines = await eventually(machines_without_stand_ins)
    assert all(one.offering.removesuffix("/t3.micro") in ZONES for one in machines)
    assert await fleet.replace(machines[0].id, 120.0)
    assert len(await provider.machines()) == 4
    assert all(price > 0 for price in (await provider.prices()).values())
    await fleet.scale(1)
    # The cloud takes the replaced one itself; the fleet terminates it only once its time is over.
    assert machines[0].id in {one.id for one in await provider.machines()}
    await fleet.close()


async def test_machines_without_the_tag_of_the_pool_are_not_counted(ec2: Any) -> None:
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)
    provider, _ = spot_provider(ec2, spot_config())
    assert await provider.machines() == []


async def test_a_launch_without_its_launch_template_is_an_error(ec2: Any) -> None:
    provider, _ = spot_provider(ec2, spot_config(launch_template="missing"))
    with pytest.raises(OSError, match="LaunchTemplate"):
        await provider.launch("")


async def test_a_fleet_on_ec2_uses_all_configured_types(ec2: Any) -> None:
    config = spot_config(on_demand_price=10.0, more_types={"t3.large": 4.0})
    provider, clock = spot_provider(ec2, config)
    types = {"t3.micro", "t3.large"}
    assert set(await provider.prices()) == {f"{zone}/{kind}" for zone in ZONES for kind in types}
    assert await provider.launch(f"{REGION}a/t3.large")
    assert await provider.launch("")
    machines = await provider.machines()
    assert sorted(one.offering for one in machines) == ["", f"{REGION}a/t3.large"]
    launched = {one.id for one in machines}
    rows = [row for group in ec2.describe_instances()["Reservations"] for row in group["Instances"]]
    assert {row["InstanceType"] for row in rows if row["InstanceId"] in launched} == types
    fleet = SpotFleet(provider, ec2_offerings(config), clock, SpotPolicy(overprovision=0))
    await fleet.scale(4)
    assert (await fleet.status()).ready == 4
    await fleet.close()
