"""Calls to the router in the name of an HTTP caller: the router authenticates each by its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, Self

from google.protobuf.message import Message
from penstock.rpc.auth import TOKEN_KEY
from penstock.rpc.call import Call
from penstock.rpc.peers.stream import Peer


class PresentingPeer(Peer, Protocol):
    """A peer whose calls can carry metadata of their own."""

    def presenting(self, metadata: tuple[tuple[str, str], ...]) -> Self:
        """The same peer, with this metadata on each call."""
        ...


class RouterCalls:
    """The router, for callers with keys."""

    def __init__(self, peer: PresentingPeer, token: str = "") -> None:
        """`token`: the internal one, by which the router knows the edge for a service of ours."""
        self._peer = peer
        self._token = ((TOKEN_KEY, token),) if token else ()

    async def call(self, method: str, request: Message, call: Call, key: str) -> Any:
        """The response of an RPC.

        Raises:
            Fault: as the router says.
        """
        return await self._as(key, call).call(method, request, call)

    def stream(self, method: str, request: Message, call: Call, key: str) -> AsyncIterator[Any]:
        """The responses of a streaming RPC; closing the iterator cancels it."""
        return self._as(key, call).stream(method, request, call)

    def _as(self, key: str, call: Call) -> PresentingPeer:
        metadata: tuple[tuple[str, str], ...] = self._token
        if key:
            metadata = (*metadata, ("authorization", f"Bearer {key}"))
        if call.traceparent:
            metadata = (*metadata, ("traceparent", call.traceparent))
        return self._peer.presenting(metadata)

    async def close(self) -> None:
        """Close the connection."""
        await self._peer.close()
