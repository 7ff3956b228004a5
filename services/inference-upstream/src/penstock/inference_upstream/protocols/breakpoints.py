"""Which cache breakpoints of a conversation are sent: providers take few, for long prefixes."""

from __future__ import annotations

from collections.abc import Set

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.switches import Switches
from penstock.service.purity import pure

Place = tuple[int, int | None]
"""After which turn, and after which of its parts; None after the last. Turn -1 are the tools."""
Breakpoints = Set[Place]
TOOLS: Place = (-1, None)
MIN_BYTES_PER_TOKEN = 2
"""Fewest bytes that a token of a prefix has on average: a prefix that is too short even so is not
cached.
"""


@pure
def breakpoints(task: pb.GenerateTask, switches: Switches, min_tokens: int = 0) -> Breakpoints:
    """The places after which a breakpoint is sent, at most `max_breakpoints`.

    Prefixes that are too short for the provider's cache do not use one up. Where there are more
    than the provider takes, the first stays, which changes least, and the last ones, which reach
    farthest.

    Args:
        min_tokens: the shortest prefix that is cached, where the switches do not say.
    """
    if switches.breakpoints == "none" or not switches.max_breakpoints:
        return frozenset()
    shortest_bytes = (switches.min_cache_tokens or min_tokens) * MIN_BYTES_PER_TOKEN
    size, places = sum(tool.ByteSize() for tool in task.tools), []
    if any(tool.cache_breakpoint for tool in task.tools) and size >= shortest_bytes:
        places.append(TOOLS)
    for index, message in enumerate(task.messages):
        for number, part in enumerate(message.parts):
            size += part.ByteSize()
            if part.cache_breakpoint and size >= shortest_bytes:
                places.append((index, number))
        size += message.ByteSize() - sum(part.ByteSize() for part in message.parts)
        if message.cache_breakpoint and size >= shortest_bytes:
            places.append((index, None))
    most = switches.max_breakpoints
    return frozenset(
        places if len(places) <= most else places[:1] + places[len(places) - most + 1 :]
    )
