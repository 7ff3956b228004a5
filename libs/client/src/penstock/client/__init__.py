"""The Python client: `Penstock` for asyncio, `PenstockSync` for code without it.

from penstock.client import PenstockSync

with PenstockSync("127.0.0.1:7070", "psk-development") as penstock:
    print(penstock.embed(["where is my order"]).embeddings[0].values[:3])
"""

from penstock.client.errors import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    NotFound,
    NotOpen,
    PenstockError,
    Refused,
    Unavailable,
)
from penstock.client.penstock import Penstock
from penstock.client.run import Priority, Run
from penstock.client.sync import PenstockSync

__all__ = [
    "BadRequest",
    "Busy",
    "Cancelled",
    "DeadlineExceeded",
    "NotFound",
    "NotOpen",
    "Penstock",
    "PenstockError",
    "PenstockSync",
    "Priority",
    "Refused",
    "Run",
    "Unavailable",
]
