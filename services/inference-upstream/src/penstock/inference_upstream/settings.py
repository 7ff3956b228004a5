"""The settings of the upstream service, and the `upstreams` section of the configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from penstock.inference_upstream.providers import (
    NAMED,
    AuthStyle,
    Provider,
    WireName,
    provider_at,
)
from penstock.inference_upstream.switches import Switches
from penstock.service.settings import BadConfig, Section, ServiceSettings
from penstock.tasks.kinds import GENERATE, KindName
from pydantic import Field, field_validator

Modality = Literal["text", "image", "file"]


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
    registry_address: str = Field(
        "", description="the router's port for instances, where it has one; empty: router_address"
    )
    batcher_address: str = Field(
        "", description="address of this instance's batcher; empty: the router's default"
    )
    zone: str = Field("", description="availability zone of this instance")


class Timeouts(Section):
    """The longest waits of a call: a model's, else its upstream's, else the defaults."""

    first_byte_timeout_ms: int | None = Field(None, ge=1)
    """For the first byte of a streamed answer."""
    silence_timeout_ms: int | None = Field(None, ge=1)
    """Between two pieces of an answer; comments and pings of the upstream count as pieces. For a
    connection of the pool too.
    """
    whole_timeout_ms: int | None = Field(None, ge=1)
    """For a whole answer from its request to its end, streamed or not, beside the caller's own
    deadline. An answer that is not streamed sends nothing before it is made, so it has no other.
    """


class UpstreamModel(Timeouts):
    """A model of an upstream."""

    name: str = Field(min_length=1, max_length=128)
    """Its name at the router."""
    upstream_name: str = ""
    """Its name at the upstream; empty: the same."""
    tasks: tuple[KindName, ...] = (GENERATE.name,)
    max_input_tokens: int = Field(128_000, ge=1)
    max_output_tokens: int = Field(0, ge=0)
    """Its largest answer; 0: not known."""
    inputs: tuple[Modality, ...] = ("text",)
    """What its turns may hold."""
    max_embed_texts: int | None = Field(None, ge=0)
    """Texts of one embedding request, to which larger ones are split; 0: any number; none: what the
    provider is known to take.
    """
    switches: Switches = Switches()

    @property
    def name_at_upstream(self) -> str:
        """Its name at the upstream."""
        return self.upstream_name or self.name


class Upstream(Timeouts):
    """A server of hosted models. Its key comes from a variable or a file, never from here."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    base_url: str
    """The address before `/chat/completions` or `/messages`; `{model}` in it is the model's name at
    the upstream.
    """
    provider: str = ""
    """Whose defaults apply; empty: those of the provider whose address it is."""
    wire: WireName | None = None
    """The protocol; none: the provider's."""
    auth: AuthStyle | None = None
    """How the key is sent: `authorization: Bearer`, `api-key` or `x-api-key`; none: as the provider
    wants it.
    """
    key_env: str = ""
    """The environment variable that holds the key."""
    key_file: Path | None = None
    """The file that holds the key; goes before `key_env`."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """Further headers of every request, such as `anthropic-beta`."""
    query: Mapping[str, str] = Field(default_factory=dict)
    """The query of every request, such as `api-version`."""
    paths: Mapping[Literal["generate", "embed", "rerank"], str] = Field(default_factory=dict)
    """Paths after the base address, where they differ from the protocol's."""
    switches: Switches = Switches()
    models: tuple[UpstreamModel, ...] = Field(min_length=1)
    connect_timeout_ms: int = Field(2_000, ge=1)
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
    proxy: str = ""
    """An HTTP proxy through which the upstream is reached, such as `http://proxy:3128`."""
    proxy_auth_env: str = ""
    """The environment variable that holds `user:password` for the proxy."""
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

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url

    @field_validator("provider")
    @classmethod
    def _check_provider(cls, name: str) -> str:
        if name and name not in NAMED:
            raise ValueError(f"is not one of {', '.join(NAMED)}")
        return name

    @property
    def known_provider(self) -> Provider:
        """The row of the table of providers that applies."""
        return NAMED[self.provider] if self.provider else provider_at(self.base_url)

    def switches_of(self, model: UpstreamModel) -> Switches:
        """The switches of a model: its own, else the upstream's, else its provider's."""
        return model.switches.over(self.switches.over(self.known_provider.switches))

    def max_embed_texts_of(self, model: UpstreamModel) -> int:
        """Texts of one embedding request; 0 for any number."""
        own = model.max_embed_texts
        return self.known_provider.max_embed_texts if own is None else own

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
        return self._secret(self.key_env, "key")

    def proxy_auth(self) -> tuple[str, str] | None:
        """User and password for the proxy; None where none are configured.

        Raises:
            BadConfig: the variable is not set.
        """
        if not self.proxy_auth_env:
            return None
        user, _, password = self._secret(self.proxy_auth_env, "user and password").partition(":")
        return user, password

    def _secret(self, variable: str, what: str) -> str:
        value = os.environ.get(variable, "") if variable else ""
        if variable and not value:
            raise BadConfig([f"upstreams: {self.name}: the variable {variable} holds no {what}"])
        return value


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
