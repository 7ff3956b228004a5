"""What calls would have used without Penstock: each prompt as its caller wrote it, beside what is
sent in its place. A model whose input has one price needs none of it.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.prices.prices import Prices
from penstock.prompts.conversation import Conversation
from penstock.prompts.direct_prompts import CacheKey, DirectPrompt, DirectPrompts, PromptTokens
from penstock.router.prompts.conversations import cache_settings
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call
from penstock.service.clock import Clock
from penstock.service.current import Current


class DirectCalls:
    """Follows prompts; an organisation's calls of a model fill one cache at the provider."""

    def __init__(self, prices: Current[Prices], clock: Clock) -> None:
        self._prices = prices
        self._clock = clock
        self._prompts = DirectPrompts()

    def follow(
        self,
        call: Call,
        request: ResolvedRequest,
        came: Conversation,
        sent: Conversation | None,
        left_out: int = 0,
    ) -> FollowedCall | None:
        """A prompt has come; None where its model has no prices for a prefix cache.

        Args:
            call: the call.
            request: its request, with the task as it came.
            came: its prompt.
            sent: the prompt as it is sent; None where it is answered from memory.
            left_out: tokens that are not sent of it.
        """
        if not self._prices.value.has_prefix_prices(request.model):
            return None
        settings = cache_settings(request.task.generate, request.model)
        owner = call.principal.organisation, request.model
        key = CacheKey(owner, settings, self._clock.monotonic())
        return FollowedCall(self._prompts, self._prompts.follow(key, came, sent, left_out))


class FollowedCall(NamedTuple):
    """A call whose prompt was followed; a `stages.DirectCall`."""

    prompts: DirectPrompts
    prompt: DirectPrompt

    def usage(self, reported: common_pb2.Usage) -> common_pb2.Usage:
        direct = common_pb2.Usage()
        direct.CopyFrom(reported)
        if reported.estimated:
            direct.input_tokens = max(0, reported.input_tokens + self.prompt.left_out)
            return direct
        tokens = self.prompts.tokens(
            self.prompt,
            PromptTokens(
                reported.input_tokens, reported.cached_input_tokens, reported.written_input_tokens
            ),
        )
        direct.input_tokens = tokens.input
        direct.cached_input_tokens, direct.written_input_tokens = tokens.cached, tokens.written
        return direct
