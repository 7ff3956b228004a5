"""The settings of the upstream service, and the `upstreams` section of the configuration file."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.service.settings import BadConfig, Section, ServiceSettings
from penstock.tasks.kinds import GENERATE, KindName
from pydantic import Field, field_validator


class UpstreamSettings(ServiceSettings):
    """Settings of one process, which serves one upstream; from the environment."""

    listen: str = Field(
        "127.0.0.1:7077", description="address to serve on: host:port or unix:/path"
    )
    upstream: str = Field(
        "",
        description="name of the upstream, in the file's upstreams section, that this process "
        "serves; empty: the first",
    )
    instance_id: str = Field(
        "", description="name of this instance at the router; empty: the upstream's name"
    )
    router_address: str = Field(
        "", description="address of the router to register with; empty: no registration"
    )
    batcher_address: str = Field(
        "", description="address of this instance's batcher; empty: the router's default"
    )
    zone: str = Field("", description="availability zone of this instance")


class UpstreamModel(Section):
    """A model of an upstream."""

    name: str = Field(min_length=1, max_length=128)
    """Its name at the router."""
    upstream_name: str = ""
    """Its name at the upstream; empty: the same."""
    tasks: tuple[KindName, ...] = (GENERATE.name,)
    max_input_tokens: int = Field(128_000, ge=1)

    @property
    def name_at_upstream(self) -> str:
        """Its name at the upstream."""
        return self.upstream_name or self.name


class Upstream(Section):
    """An OpenAI-compatible server. Its key comes from a variable or a file, never from here."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    base_url: str
    key_env: str = ""
    """The environment variable that holds the key."""
    key_file: Path | None = None
    """The file that holds the key; goes before `key_env`."""
    models: tuple[UpstreamModel, ...] = Field(min_length=1)
    connect_timeout_ms: int = Field(2_000, ge=1)
    silence_timeout_ms: int = Field(30_000, ge=1)
    """Longest pause before and between two pieces of an answer, and longest wait for a connection
    of the pool.
    """
    most_connections: int = Field(100, ge=1)
    """Connections that may be open."""
    kept_connections: int = Field(100, ge=0)
    """While more connections than this are open, a connection is closed when its call ends."""
    keepalive_s: float = Field(30.0, ge=0)
    """An idle connection is closed after so many seconds, whether calls come or not."""
    refresh_s: float = Field(300.0, ge=0)
    """New calls get new connections after so many seconds, so that the host name is looked up
    again; running calls end on the old ones.
    """
    http2: bool = False
    """Whether to offer HTTP/2 over TLS, by which calls share a connection."""
    ca_file: Path | None = None
    """PEM file of the certificate authorities to trust; none: those that certifi lists."""
    most_answer_bytes: int = Field(8 << 20, ge=1)
    """Bytes that a whole answer may have."""
    resumes: bool = False
    """True for a server (vLLM, SGLang) that continues an assistant's turn at the end of a
    conversation, so that a cut answer can go on there.
    """
    concurrency: int = Field(16, ge=1)
    """Calls at once that the batcher begins with; it learns how many the upstream takes."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")

    def key(self) -> str:
        """The key, read now; empty where none is configured.

        Raises:
            BadConfig: the file cannot be read, or the variable is not set.
        """
        if self.key_file is not None:
            try:
                return self.key_file.read_text().strip()
            except OSError as error:
                raise BadConfig(
                    [f"upstreams: {self.name}: key_file cannot be read ({error.strerror})"]
                ) from None
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "")
        if not key:
            raise BadConfig([f"upstreams: {self.name}: the variable {self.key_env} holds no key"])
        return key


class UpstreamsSection(Section):
    """`upstreams:` of the file."""

    servers: tuple[Upstream, ...] = ()

    def named(self, name: str) -> Upstream:
        """The upstream of that name, the first where it is empty.

        Raises:
            BadConfig: there is none.
        """
        for server in self.servers:
            if name in ("", server.name):
                return server
        known = ", ".join(server.name for server in self.servers) or "none"
        raise BadConfig([f"upstreams.servers: no upstream {name!r}; known are {known}"])
