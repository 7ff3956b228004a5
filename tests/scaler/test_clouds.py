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
from penstock.scaler.actuate.aws import AutoScalingGroups, AwsPrices
from penstock.scaler.actuate.kubernetes import KubernetesScale
from penstock.scaler.settings import AwsActuator, AwsSpotActuator, KubernetesActuator
from penstock.scaler.spot.ec2 import Ec2SpotProvider, places
from penstock.scaler.spot.fleet import SpotFleet
from penstock.scaler.spot.placement_rule import SpotPolicy
from penstock.service.clock import SystemClock
from penstock.testkit.clock import FakeClock

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


async def test_groups_take_their_share(groups: Any) -> None:
    config = AwsActuator(kind="aws", group="steady", spot_group="spot", base=2, region=REGION)
    fleet = AutoScalingGroups(config, SystemClock(), None, groups)
    assert await fleet.fleet() == FleetStatus(2, 2)
    await fleet.scale(5)
    assert fleet.on_demand(5) == 2
    sizes = {
        row["AutoScalingGroupName"]: row["DesiredCapacity"]
        for row in groups.describe_auto_scaling_groups()["AutoScalingGroups"]
    }
    assert sizes == {"steady": 2, "spot": 3}


async def test_a_machine_that_will_go_is_replaced_by_its_group_and_ended_once_it_is_drained(
    groups: Any,
) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)

    def state(machine: str) -> str:
        row = ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]
        return str(row["State"]["Name"])

    drained: list[tuple[str, str, int]] = []

    async def drain(machine: str, reason: str) -> None:
        drained.append((reason, state(machine), (await fleet.fleet()).ready))

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
    assert await fleet.fleet() == FleetStatus(1, 1)
    assert not await fleet.replace("i-0123456789abcdef0", 120.0)


async def test_a_missing_group_is_an_error_that_leaves_the_last_answer(groups: Any) -> None:
    fleet = AutoScalingGroups(
        AwsActuator(kind="aws", group="nobody", region=REGION), SystemClock(), None, groups
    )
    with pytest.raises(OSError, match="nobody"):
        await fleet.fleet()


async def test_prices_come_by_zone(groups: Any) -> None:
    prices = await AwsPrices(["t3.micro", "t3.small"], REGION).latest(
        datetime.datetime.now(datetime.UTC)
    )
    assert all(zone.startswith(REGION) and price > 0 for (zone, _), price in prices.items())
    assert {kind for _, kind in prices} == {"t3.micro", "t3.small"}


class ApiServer(http.server.BaseHTTPRequestHandler):
    """As much of the Kubernetes API as the scale of one Deployment needs."""

    replicas, ready, patches = 2, 1, 0

    def do_GET(self) -> None:
        known = self.path == "/apis/apps/v1/namespaces/models/deployments/encoder"
        self._say(200 if known else 404, _deployment())

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/apis/apps/v1/namespaces/models/deployments/encoder/scale"
        ApiServer.replicas, ApiServer.patches = body["spec"]["replicas"], ApiServer.patches + 1
        self._say(200, {"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": body["spec"]})

    def _say(self, status: int, value: dict[str, Any]) -> None:
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
    assert await fleet.fleet() == FleetStatus(2, 1)
    await fleet.scale(5)
    assert await fleet.fleet() == FleetStatus(5, 1)
    assert ApiServer.patches == 1


async def test_a_missing_deployment_is_an_error(cluster: client.AppsV1Api) -> None:
    fleet = KubernetesScale(
        KubernetesActuator(kind="kubernetes", name="nobody", namespace="models"), cluster
    )
    with pytest.raises(OSError, match="404"):
        await fleet.fleet()


ZONES = {f"{REGION}{letter}": letter for letter in "abc"}


async def test_a_fleet_on_ec2_spot_is_launched_replaced_and_given_back(groups: Any) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.create_launch_template(LaunchTemplateName="encoder", LaunchTemplateData={"ImageId": image})
    config = AwsSpotActuator(
        kind="aws_spot",
        launch_template="encoder",
        instance_type="t3.micro",
        zones=ZONES,
        on_demand_price=0.012,
        region=REGION,
    )
    clock = FakeClock(1_800_000_000.0)
    cloud = Ec2SpotProvider("m", config, clock, ec2)
    fleet = SpotFleet(cloud, places(config), clock, SpotPolicy(extra=1))
    await fleet.scale(2)
    machines = await cloud.machines()
    assert len({one.zone for one in machines if one.zone}) == 3 and all(
        one.serves for one in machines
    )
    await fleet.fleet()
    assert (await fleet.fleet()) == FleetStatus(2, 2)
    machines = await cloud.machines()
    assert len(machines) == 3 and all(
        one.zone.removesuffix("/t3.micro") in ZONES for one in machines
    )
    assert await fleet.replace(machines[0].id, 120.0)
    assert len(await cloud.machines()) == 4
    assert all(price > 0 for price in (await cloud.prices()).values())
    await fleet.scale(1)
    assert machines[0].id in {
        one.id for one in await cloud.machines()
    }  # the cloud takes that one itself, unless it forgets to
    await fleet.close()


async def test_another_pools_machines_are_not_seen(groups: Any) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    config = AwsSpotActuator(
        kind="aws_spot",
        launch_template="x",
        instance_type="t3.micro",
        zones=ZONES,
        on_demand_price=1.0,
    )
    ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], MinCount=1, MaxCount=1)
    cloud = Ec2SpotProvider("m", config, FakeClock(1_800_000_000.0), ec2)
    assert await cloud.machines() == []
    with pytest.raises(OSError, match="LaunchTemplate"):
        await cloud.launch("")


async def test_a_fleet_on_ec2_uses_the_types_it_may(groups: Any) -> None:
    ec2 = boto3.client("ec2", region_name=REGION)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.create_launch_template(LaunchTemplateName="encoder", LaunchTemplateData={"ImageId": image})
    config = AwsSpotActuator(
        kind="aws_spot",
        launch_template="encoder",
        instance_type="t3.micro",
        zones=ZONES,
        on_demand_price=10.0,
        region=REGION,
        more_types={"t3.large": 4.0},
    )
    clock = FakeClock(1_800_000_000.0)
    cloud = Ec2SpotProvider("m", config, clock, ec2)
    prices = await cloud.prices()
    assert set(prices) == {f"{zone}/{kind}" for zone in ZONES for kind in ("t3.micro", "t3.large")}
    assert await cloud.launch(f"{REGION}a/t3.large") and await cloud.launch("")
    machines = await cloud.machines()
    assert sorted(one.zone for one in machines) == ["", f"{REGION}a/t3.large"]
    rows = [row for group in ec2.describe_instances()["Reservations"] for row in group["Instances"]]
    assert {
        row["InstanceType"] for row in rows if row["InstanceId"] in {one.id for one in machines}
    } == {
        "t3.micro",
        "t3.large",
    }
    fleet = SpotFleet(cloud, places(config), clock, SpotPolicy(extra=0))
    await fleet.scale(4)
    assert (await fleet.fleet()).ready == 4
    await fleet.close()
