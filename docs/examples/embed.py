"""An embedding and its receipt, by generated stubs alone.

`make up` first; then `.venv/bin/python docs/examples/embed.py`.
"""

from __future__ import annotations

import os

import grpc
from penstock.api.router.v1 import router_pb2, router_pb2_grpc

ADDRESS = os.environ.get("PENSTOCK_ADDRESS", "127.0.0.1:7070")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")

with grpc.insecure_channel(ADDRESS) as channel:
    router = router_pb2_grpc.RouterServiceStub(channel)
    request = router_pb2.EmbedRequest(
        texts=["where is my order"], options=router_pb2.CallOptions(run_id="example", step="1")
    )
    answer = router.Embed(request, metadata=(("authorization", f"Bearer {KEY}"),), timeout=10)

receipt = answer.receipt
instance = receipt.route.instance_id or "the cache"
print(f"{len(answer.embeddings[0].values)} values from {instance}")
print(
    f"{receipt.total_ms:.1f} ms, {receipt.cost.paid_microusd} micro-dollars, "
    f"trace {receipt.trace_id}"
)
