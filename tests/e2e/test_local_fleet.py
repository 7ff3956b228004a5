"""A stack that follows its configuration: instances and upstreams come and go without a restart,
and a user's own model is imported, judged and served by one command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from own_model import write_onnx, write_tokenizer
from penstock.api.router.v1 import router_pb2 as pb
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.stack.following import Follower
from penstock.stack.log import LogStream
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import WholeStack, run_stack
from penstock.testkit.eventually import eventually
from rich.console import Console
from running_command import Ended, run_command

KEY = "psk-own"
SERVER = {"name": "cloud", "base_url": "http://127.0.0.1:9", "models": [{"name": "hosted"}]}
TIMEOUT_S = 60.0
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]


class Lines(LogStream):
    """A log that keeps its lines as text."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.lines: list[str] = []

    def __call__(self, name: str, line: str) -> None:
        super().__call__(name, line)
        self.lines.append(f"{name}: {line}")


@dataclass
class Followed:
    """A stack that follows its configuration."""

    stack: WholeStack
    follower: Follower
    log: Lines

    def configure(self, **sections: Any) -> None:
        """Write the configuration, with a key for these tests."""
        content = {"keys": {"api": [api_key("acme", KEY)]}, **sections}
        self.stack.plan.config_file.write_text(yaml.safe_dump(content))

    async def ready(self, model: str) -> int:
        """How many instances may be given work for a model."""
        answer = await self.stack.router.ListModels(
            pb.ListModelsRequest(), metadata=self.stack.metadata("acme")
        )
        return sum(row.ready_instances for row in answer.models if row.name == model)

    async def wait_ready(self, model: str, is_enough: Callable[[int], bool]) -> None:
        async def enough() -> bool:
            return is_enough(await self.ready(model))

        await eventually(enough, TIMEOUT_S)

    async def command(self, *arguments: str) -> Ended:
        """Run `penstock` against this stack."""
        plan = self.stack.plan
        return await run_command(
            *arguments,
            PENSTOCK_ADDRESS=plan.addresses["router"],
            PENSTOCK_KEY=KEY,
            PENSTOCK_HOME=str(plan.home),
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def followed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    models = folder / "models"
    models.mkdir()
    (models / DEFAULT_MODEL).symlink_to(home / "models" / DEFAULT_MODEL)
    config = folder / "penstock.yaml"
    instances = [{"models": [DEFAULT_MODEL], "name": "text"}]
    sections = {"keys": {"api": [api_key("acme", KEY)]}, "instances": instances}
    config.write_text(yaml.safe_dump(sections))
    log = Lines()
    async with run_stack(ports.free(), folder, config, {"acme": KEY}, log) as stack:
        await stack.wait_for_fleet()
        follower = Follower(stack.plan, stack.config, stack.supervisor, stack.fleet, log)
        following = asyncio.create_task(follower.run())
        try:
            yield Followed(stack, follower, log)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


async def test_instances_and_upstreams_come_and_go_with_the_file(followed: Followed) -> None:
    assert list(followed.stack.fleet.addresses) == ["text-1"]
    group = {"models": [DEFAULT_MODEL], "name": "text", "count": 2}
    followed.configure(instances=[group], upstreams={"servers": [SERVER]})
    await followed.wait_ready(DEFAULT_MODEL, lambda count: count == 2)
    await followed.wait_ready("hosted", lambda count: count == 1)
    followed.configure(instances=[{**group, "count": 1}])
    await followed.wait_ready(DEFAULT_MODEL, lambda count: count == 1)
    await followed.wait_ready("hosted", lambda count: count == 0)


async def test_a_file_with_faults_is_refused_with_their_places_and_what_runs_stays(
    followed: Followed,
) -> None:
    before = list(followed.stack.fleet.addresses)
    followed.configure(instances=[{"models": ["nowhere"]}])

    def refused() -> bool:
        return any(
            "refused" in line and "'nowhere' is not in" in line for line in followed.log.lines
        )

    await eventually(refused, TIMEOUT_S)
    assert list(followed.stack.fleet.addresses) == before
    followed.configure(instances=[{"models": [DEFAULT_MODEL], "name": "text"}])
    followed.follower.read_again()
    reads = sum("read again" in line for line in followed.log.lines)
    await eventually(
        lambda: sum("read again" in line for line in followed.log.lines) > reads, TIMEOUT_S
    )


async def test_a_models_own_file_is_imported_judged_and_served_without_a_restart(
    followed: Followed, tmp_path: Path
) -> None:
    write_onnx(tmp_path / "words.onnx")
    write_tokenizer(tmp_path / "tokenizer.json")
    source = str(tmp_path / "words.onnx")
    added = await followed.command("models", "add", source, "--floor", "0.5", "--name", "mine")
    assert added.status == 0, added.error
    assert "no restart was needed" in added.out
    assert "cosine_mean" in added.out
    embedded = await followed.command("embed", "invoice of march", "--model", "mine")
    assert "mine-1" in embedded.out, embedded.error

    again = await followed.command("models", "add", source, "--floor", "0.5", "--name", "mine")
    assert "1 instances serve the new version" in again.out, again.error
    other = await followed.command("embed", "a broken grinder", "--model", "mine", "--json")
    assert '"revision": "2' in other.out, other.error

    removed = await followed.command("models", "remove", "mine")
    assert removed.status == 0
    await followed.wait_ready("mine", lambda count: count == 0)


async def test_a_model_below_the_floor_leaves_nothing(followed: Followed, tmp_path: Path) -> None:
    write_onnx(tmp_path / "words.onnx")
    write_tokenizer(tmp_path / "tokenizer.json")
    source = str(tmp_path / "words.onnx")
    ended = await followed.command("models", "add", source, "--floor", "1.1", "--name", "poor")
    assert ended.status == 2
    assert "floor" in ended.error
    models = followed.stack.plan.home / "models"
    assert not list(models.glob("poor*/*"))
