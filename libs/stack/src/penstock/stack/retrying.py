"""A router stub that asks again where a call was refused for a moment, as clients do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

from penstock.api.router.v1 import router_pb2, router_pb2_grpc
from penstock.rpc.peers.stream import open_channel
from penstock.stack.stack import Stack

SERVICE = router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "3s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""gRPC's own retries (https://github.com/grpc/proposal/blob/master/A6-client-retries.md). A code
that asks for patience is retried, as the Python client does; all others are final.
"""


@contextlib.asynccontextmanager
async def with_retries(stack: Stack) -> AsyncIterator[Stack]:
    """The same stack, whose `router` retries."""
    config = {"methodConfig": [{"name": [{"service": SERVICE}], "retryPolicy": RETRY_POLICY}]}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.enable_retries", 1)]
    async with open_channel(stack.addresses["router"], stack.tls, options=options) as channel:
        yield replace(stack, router=router_pb2_grpc.RouterServiceStub(channel))
