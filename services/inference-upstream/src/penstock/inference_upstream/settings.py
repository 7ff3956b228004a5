"""The knobs of the upstream service, from the environment and the `upstreams` section of the
file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from penstock.service.settings import BadConfig, Section, ServiceSettings
from pydantic import Field, field_validator


class UpstreamSettings(ServiceSettings):
    """Settings of one process; it fronts one upstream."""

    listen: str = Field(
        "127.0.0.1:7077", description="address to serve on: host:port or unix:/path"
    )
    upstream: str = Field(
        "",
        description="name of the upstream in the file that this process fronts; empty: the first",
    )
    instance_id: str = Field("", description="name at the router; empty: the upstream's")
    router_address: str = Field("", description="router to register with; empty: none")
    batcher_address: str = Field(
        "", description="batcher that holds what waits for this upstream; empty: the router's"
    )
    zone: str = Field("", description="failure domain")


class UpstreamModel(Section):
    """One model: its name here and there, and what it does."""

    name: str = Field(min_length=1, max_length=128)
    upstream_name: str = ""
    tasks: tuple[Literal["generate", "embed"], ...] = ("generate",)
    max_input_tokens: int = Field(128_000, ge=1)


class Upstream(Section):
    """One OpenAI-compatible server. Its key comes from a variable or a file, never from here."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    base_url: str
    key_env: str = ""
    key_file: Path | None = None
    models: tuple[UpstreamModel, ...] = Field(min_length=1)
    connect_timeout_ms: int = Field(2_000, ge=1)
    silence_timeout_ms: int = Field(30_000, ge=1)
    """Longest pause between two pieces of an answer, the first one included."""
    most_connections: int = Field(100, ge=1)
    kept_connections: int = Field(100, ge=0)
    """While more than so many are open, a connection is closed as soon as its call ends; below it,
    those that calls at once have needed in the last `keepalive_s` stay.
    """
    keepalive_s: float = Field(30.0, ge=0)
    """An idle connection is used no more after so long, and closed soon after, whether calls come
    or not.
    """
    refresh_s: float = Field(300.0, ge=0)
    """New calls get new connections after so long, so that the name is looked up again; running
    calls end on the old ones.
    """
    http2: bool = False
    ca_file: Path | None = None
    most_answer_bytes: int = Field(8 << 20, ge=1)
    resumes: bool = False
    """True for a server (vLLM, SGLang) that continues an assistant's turn at the end of a
    conversation: a cut answer goes on there.
    """
    concurrency: int = Field(16, ge=1)
    """What the batcher begins with; it learns what the upstream takes."""

    @field_validator("base_url")
    @classmethod
    def _url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")

    def key(self) -> str:
        """The key, read now.

        Raises:
            BadConfig: the variable or the file that should hold it is not there.
        """
        if self.key_file is not None:
            try:
                return self.key_file.read_text().strip()
            except OSError as error:
                raise BadConfig(
                    [f"upstreams: {self.name}: key_file cannot be read ({error.strerror})"]
                ) from None
        if self.key_env and not os.environ.get(self.key_env):
            raise BadConfig([f"upstreams: {self.name}: the variable {self.key_env} holds no key"])
        return os.environ.get(self.key_env, "") if self.key_env else ""


class UpstreamsSection(Section):
    """`upstreams:` of the file."""

    servers: tuple[Upstream, ...] = ()

    def named(self, name: str) -> Upstream:
        """The upstream of that name, or the first.

        Raises:
            BadConfig: there is none.
        """
        for server in self.servers:
            if name in ("", server.name):
                return server
        known = ", ".join(server.name for server in self.servers) or "none"
        raise BadConfig([f"upstreams.servers: no upstream {name!r}; known are {known}"])
