"""Several services of one kind asked as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.message import Message
from penstock.rpc.call import Call
from penstock.rpc.errors import Fault
from penstock.rpc.peers.stream import Peer


class MergedPeer:
    """Asks every peer and answers with all answers merged as protobuf merges messages: repeated
    fields follow each other, of others the last counts. For questions that change nothing.

    A peer that does not answer is left out; the call fails where none answers.

    Args:
        peers: at least one.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers

    @property
    def responds(self) -> bool:
        """See Peer: true while one of them responds."""
        return any(peer.responds for peer in self._peers)

    async def call(self, method: str, request: Message, call: Call) -> Any:
        """See Peer."""
        asked = (peer.call(method, request, call) for peer in self._peers)
        results = await asyncio.gather(*asked, return_exceptions=True)
        answers = [each for each in results if not isinstance(each, BaseException)]
        for error in results:
            if isinstance(error, BaseException) and not (answers and isinstance(error, Fault)):
                raise error
        first, *others = answers
        for answer in others:
            first.MergeFrom(answer)
        return first

    def stream(self, method: str, request: Message, call: Call) -> AsyncIterator[Any]:
        """Streams of several services do not merge."""
        raise NotImplementedError(f"{method} cannot be asked of several services at once")

    async def close(self) -> None:
        """See Peer."""
        await asyncio.gather(*(peer.close() for peer in self._peers))
