"""Edge, router, batcher and an upstream in one process, before a scripted provider: the whole way
of a call, over real HTTP on both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpcore
import orjson
import yaml
from penstock.batcher.build import ASSEMBLY as BATCHER
from penstock.edge.build import ASSEMBLY as EDGE
from penstock.edge.json_fields import Json
from penstock.hosting.cell import Member, serving_together
from penstock.inference_upstream.build import ASSEMBLY as UPSTREAM
from penstock.router.build import ASSEMBLY as ROUTER
from penstock.stack import ports
from penstock.stack.configuration import api_key
from penstock.testkit.eventually import eventually
from penstock.testkit.upstream import ScriptedUpstream

KEY, OTHER_KEY = "psk-edge", "psk-other"
MODEL = "chat"
EDGE_SETTINGS: Mapping[str, Any] = {
    "first_piece_s": 0.2,
    "keep_alive_s": 0.2,
    "body_timeout_s": 0.5,
    "send_timeout_s": 0.5,
    "max_calls_per_key": 4,
    "grace_s": 0.5,
}
TOKEN = "the-internal-token-of-a-test"


@dataclass
class Answered:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body."""
        value: Json = orjson.loads(self.body)
        return value

    @property
    def events(self) -> list[Json | str]:
        """The data of its events."""
        data = [
            line.removeprefix("data: ")
            for line in self.body.decode().split("\n")
            if line.startswith("data: ")
        ]
        return [each if each == "[DONE]" else orjson.loads(each) for each in data]


@dataclass
class Edge:
    """A served edge, the provider behind it, and a client."""

    address: str
    provider: ScriptedUpstream
    http: httpcore.AsyncConnectionPool = field(default_factory=httpcore.AsyncConnectionPool)

    @property
    def url(self) -> str:
        """The base address for clients of OpenAI."""
        return f"http://{self.address}/v1"

    async def send(
        self,
        method: str,
        path: str,
        body: Json | bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """A request with the key, unless other headers are given."""
        sent = {"authorization": f"Bearer {KEY}"} if headers is None else headers
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        response = await self.http.request(
            method,
            f"http://{self.address}{path}",
            headers=[(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
            content=content,
        )
        names = {name.decode().lower(): value.decode() for name, value in response.headers}
        return Answered(response.status, names, response.content)

    async def chat(self, headers: Mapping[str, str] | None = None, **fields: object) -> Answered:
        """A chat of one question, with further fields."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}
        return await self.send("POST", "/v1/chat/completions", body, headers)


def with_key(**more: str) -> dict[str, str]:
    """Headers with the key."""
    return {"authorization": f"Bearer {KEY}", **{n.replace("_", "-"): v for n, v in more.items()}}


@contextlib.asynccontextmanager
async def serving_edge(
    tmp_path: Path, provider_url: str = "", *, apart: bool = False, **settings: Any
) -> AsyncIterator[Edge]:
    """The whole way, serving.

    Args:
        provider_url: of a provider in place of the scripted one.
        apart: whether the services call each other over the wire.
        settings: further ones of the edge.
    """
    async with ScriptedUpstream() as provider:
        addresses = ports.free()
        config = tmp_path / "penstock.yaml"
        model = {"name": MODEL, "inputs": ["text", "image"]}
        switches = {"same_wire": bool(provider_url)}
        server = {
            "switches": switches,
            "name": "provider",
            "base_url": provider_url or provider.url,
            "models": [model],
        }
        keys = [api_key("acme", KEY), api_key("other", OTHER_KEY)]
        content = {"keys": {"api": keys}, "upstreams": {"servers": [server]}}
        config.write_text(yaml.safe_dump(content))
        common = {"config_file": config, "internal_token": TOKEN, "home": tmp_path, "drain_s": 0}
        edge = {**EDGE_SETTINGS, **common, **settings}
        members = [
            Member(
                EDGE,
                EDGE.settings(listen=addresses["edge"], router_address=addresses["router"], **edge),
            ),
            Member(
                ROUTER,
                ROUTER.settings(
                    listen=addresses["router"], batcher_address=addresses["batcher"], **common
                ),
            ),
            Member(BATCHER, BATCHER.settings(listen=addresses["batcher"], **common)),
            Member(
                UPSTREAM,
                UPSTREAM.settings(
                    listen=addresses["inference-upstream"],
                    router_address=addresses["router"],
                    upstream="provider",
                    **common,
                ),
            ),
        ]
        groups = [[member] for member in reversed(members)] if apart else [members]
        async with contextlib.AsyncExitStack() as serving:
            for group in groups:
                await serving.enter_async_context(serving_together(group))
            served = Edge(addresses["edge"], provider)

            async def is_served() -> None:
                models = await served.send("GET", "/v1/models")
                assert [model["id"] for model in models.json["data"]] == [MODEL]

            await eventually(is_served)
            yield served
            await served.http.aclose()
