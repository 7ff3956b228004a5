"""The latest short conversations, as tasks: an answer from the cache is mostly that of one that
comes again.
"""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2
from penstock.router.requests.resolved import SizedTask, Task, digest_of, sized
from penstock.service.bounded_map import BoundedMap
from penstock.tasks.kinds import GENERATE
from penstock.tasks.wire_request import translated


class RecentConversations:
    """Conversations that come again are neither copied nor validated nor measured nor hashed again.

    They are told apart by all of their bytes, and bounded in number and size: at most
    `max_conversations` of `max_bytes` and their tasks, about 12 MB.
    """

    max_bytes = 4_096
    max_conversations = 1_024

    def __init__(self) -> None:
        self._tasks: BoundedMap[tuple[bool, bytes], SizedTask] = BoundedMap(self.max_conversations)

    def sized(self, asked: inference_pb2.GenerateTask, *, is_translated: bool) -> SizedTask:
        """The task of a conversation.

        Args:
            asked: what a caller asks.
            is_translated: whether a service of ours has translated it. Only such a one is believed
                that a request's own bytes say what the task says, by which the call is admitted.

        Raises:
            Fault: INVALID_ARGUMENT for what cannot be.
        """
        if asked.ByteSize() > self.max_bytes:
            return _sized(asked, is_translated)
        key = (is_translated, asked.SerializeToString(deterministic=True))
        known = self._tasks.get(key)
        if known is None:
            made = _sized(asked, is_translated)
            known = made._replace(digest=digest_of(made.task))
            self._tasks.put(key, known)
        return known


def _sized(asked: inference_pb2.GenerateTask, is_translated: bool) -> SizedTask:
    task = Task(generate=asked)
    return sized(GENERATE, task if is_translated else translated(task), "task.")
