"""The settings of the edge, from the environment."""

from __future__ import annotations

from penstock.service.settings import ServiceSettings
from pydantic import Field


class EdgeSettings(ServiceSettings):
    """Settings of the edge."""

    listen: str = Field("127.0.0.1:7086", description="host:port of the HTTP APIs")
    router_address: str = Field("127.0.0.1:7070", description="the router, which serves the calls")
    max_body_bytes: int = Field(32 << 20, gt=0, description="bytes of a request's body")
    max_key_body_bytes: int = Field(
        64 << 20, gt=0, description="bytes of the bodies of one key's requests in flight"
    )
    max_bodies_bytes: int = Field(
        128 << 20, gt=0, description="bytes of the bodies of all requests in flight"
    )
    max_header_bytes: int = Field(64 << 10, gt=0, description="bytes of a request's headers")
    max_connections: int = Field(
        20_000, gt=0, description="connections; a further one is closed at once"
    )
    idle_s: float = Field(
        75.0, gt=0, description="seconds for which a connection stays without a request"
    )
    header_timeout_s: float = Field(
        15.0, gt=0, description="seconds within which a request's headers must come"
    )
    body_timeout_s: float = Field(60.0, gt=0, description="seconds within which a body must come")
    send_timeout_s: float = Field(
        60.0, gt=0, description="seconds after which a client that reads nothing is cut off"
    )
    http_deadline_s: float = Field(
        600.0, gt=0, description="seconds that a call may take; a caller may ask for fewer"
    )
    max_calls_per_key: int = Field(256, gt=0, description="requests of one key at the same time")
    first_piece_s: float = Field(
        5.0,
        gt=0,
        description="seconds after which a stream begins before there is anything to say; until "
        "then a failure has its own status",
    )
    keep_alive_s: float = Field(
        10.0, gt=0, description="seconds of silence after which a stream says that it is alive"
    )
    kept_receipts: int = Field(
        10_000, gt=0, description="latest receipts of all keys that the process itself keeps"
    )
    receipts_per_key: int = Field(
        2_000, gt=0, description="latest receipts of one key that the store keeps for all edges"
    )
    receipt_ttl_s: int = Field(
        24 * 3600, gt=0, description="seconds for which the store keeps them after the latest"
    )
    response_ttl_s: int = Field(
        30 * 24 * 3600,
        gt=0,
        description="seconds for which a response is kept after it was last needed",
    )
    max_response_bytes: int = Field(
        64 << 20, gt=0, description="bytes of the responses that are kept of one key"
    )
