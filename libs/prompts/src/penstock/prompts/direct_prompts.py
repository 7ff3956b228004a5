"""What a provider's prefix cache would have done for a prompt that was sent to it directly.

Penstock shapes prompts and reuses answers, and both change what a provider's cache holds: a shaped
prompt reads what the caller's own one would not have read, and one that is not sent at all leaves
nothing for the next. So what a call would have cost without Penstock is not in any report. Here the
prompts are followed as their callers wrote them: each is cut into blocks of about the provider's
step, known by chained digests, and what an earlier prompt began with within the provider's time
could have been read. How many tokens lie before a block is learnt from the reports: the end of an
earlier prompt is known to the token, places between two ends by their characters.

Where a prompt is sent as it came, and nothing that it begins with was shaped or reused before, a
direct call would have been the same call, and the report stands as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from penstock.prompts.conversation import BYTES_PER_TOKEN, Conversation
from penstock.prompts.prefix_cost import CacheTerms

MAX_BLOCKS, MAX_OWNERS = 65_536, 4_096
"""Blocks and owners remembered; those that were used longest ago leave. About 16 MiB."""
BLOCK_CHARACTERS = 512
REST_BYTES = 8_192
"""Of a turn's tool calls and the like; a longer rest, such as an image, is one block."""
NEVER = float("-inf")
STEPS_OFF = 2
"""Steps by which what could be read is uncertain, since places between ends are estimates."""
DEFAULT_TERMS = CacheTerms()


class CacheKey(NamedTuple):
    """Which cache a prompt would fill, and when.

    Attributes:
        owner: whose calls fill one cache at the provider.
        settings: what the cache goes by beside the text, by name.
        now_s: by a clock that only goes forward.
    """

    owner: Hashable
    settings: Mapping[str, str]
    now_s: float


class PromptTokens(NamedTuple):
    """The tokens of a prompt as a provider counts them; `cached` and `written` are part of
    `input`.
    """

    input: int
    cached: int
    written: int


class FollowedPrompt(NamedTuple):
    """A prompt in blocks.

    Attributes:
        digests: of its blocks, each with all before it.
        ends: characters up to the end of each block.
        known: blocks that could be read, since an earlier prompt began with them.
        known_tokens: up to the end of these.
    """

    digests: tuple[int, ...]
    ends: tuple[int, ...]
    known: int
    known_tokens: int


class DirectPrompt(NamedTuple):
    """A prompt as its caller wrote it, beside what is sent in its place.

    Attributes:
        owner: whose calls fill one cache.
        came: as its caller wrote it, among prompts that came.
        sent: as it is sent, among prompts that were sent; None where it is answered from memory.
        left_out: tokens that are not sent of it; negative where some are added.
    """

    owner: Hashable
    came: FollowedPrompt
    sent: FollowedPrompt | None
    left_out: int

    @property
    def is_as_reported(self) -> bool:
        """Whether a direct call would have been the call that is reported."""
        return self.sent == self.came


@dataclass(slots=True)
class _Block:
    """What is known of a block. Not frozen: it is used again.

    Attributes:
        tokens: up to its end.
        came_s: when a prompt last came with it.
        sent_s: when one was last sent with it to the provider.
        is_end: a whole prompt ended with it, so that its tokens are those of a report.
    """

    tokens: int
    came_s: float = NEVER
    sent_s: float = NEVER
    is_end: bool = False


@dataclass(slots=True)
class _Reports:
    """What an owner's provider has ever reported. Not frozen: it grows."""

    cached: bool = False
    written: bool = False


class DirectPrompts:
    """Follows prompts as they came. Not safe to share among threads."""

    def __init__(
        self,
        terms: CacheTerms = DEFAULT_TERMS,
        max_blocks: int = MAX_BLOCKS,
        max_owners: int = MAX_OWNERS,
    ) -> None:
        self._terms = terms
        self._max_blocks, self._max_owners = max_blocks, max_owners
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._reports: OrderedDict[Hashable, _Reports] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def follow(
        self, key: CacheKey, came: Conversation, sent: Conversation | None, left_out: int = 0
    ) -> DirectPrompt:
        """A prompt has come, and is sent or answered from memory.

        Args:
            key: whose cache it would fill, and when.
            came: the prompt as its caller wrote it.
            sent: as it is sent; None where it is answered from memory.
            left_out: see `DirectPrompt`.
        """
        digests, ends = _blocks_of(key, came)
        followed = self._followed(digests, ends, key.now_s, sent=False)
        beside = None
        if sent is not None:
            if sent is not came:
                digests, ends = _blocks_of(key, sent)
            beside = self._followed(digests, ends, key.now_s, sent=True)
        self._use(followed, key.now_s, sent=False)
        if beside is not None:
            self._use(beside, key.now_s, sent=True)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return DirectPrompt(key.owner, followed, beside, left_out)

    def tokens(self, prompt: DirectPrompt, reported: PromptTokens) -> PromptTokens:
        """What the provider would have reported of the prompt, had it been sent directly.

        Args:
            prompt: as `follow` returned it.
            reported: of what was sent in its place, or when the answer was computed that is reused.
        """
        reports = self._learn(prompt.owner, reported)
        whole = self._whole(prompt, reported)
        if prompt.sent is not None:
            self._place(prompt.sent, reported.input)
        self._place(prompt.came, whole)
        if prompt.is_as_reported:
            return reported
        if not reports.cached:
            return PromptTokens(whole, 0, 0)
        most = self._cacheable(whole, reported) if reports.written else self._in_steps(whole - 1)
        read = self._in_steps(prompt.came.known_tokens) + self._unexpected(prompt, reported)
        cached = min(read, most)
        return PromptTokens(whole, cached, most - cached if reports.written else 0)

    def _cacheable(self, whole: int, reported: PromptTokens) -> int:
        """Tokens of a direct prompt that would have been read or written: in the provider's steps
        where the report has them, else all but what the report leaves at the prompt's end.
        """
        held = reported.cached + reported.written
        if held == self._in_steps(reported.input):
            return self._in_steps(whole)
        return max(0, whole - (reported.input - held))

    def _unexpected(self, prompt: DirectPrompt, reported: PromptTokens) -> int:
        """Tokens that were read though nothing that is known here was sent with them, such as
        before a restart or through another router: direct calls would have read them too.
        """
        if prompt.sent is None:
            return 0
        more = reported.cached - self._in_steps(prompt.sent.known_tokens)
        return more if more > STEPS_OFF * self._terms.step_tokens else 0

    def _learn(self, owner: Hashable, reported: PromptTokens) -> _Reports:
        reports = self._reports.pop(owner, None) or _Reports()
        reports.written |= reported.written > 0
        reports.cached |= reports.written or reported.cached > 0
        self._reports[owner] = reports
        if len(self._reports) > self._max_owners:
            self._reports.popitem(last=False)
        return reports

    def _whole(self, prompt: DirectPrompt, reported: PromptTokens) -> int:
        """Tokens of the whole prompt: where it has come before, those of then, since an answer that
        is reused may be that of a like prompt.
        """
        end = self._blocks.get(prompt.came.digests[-1])
        if prompt.sent is None and end is not None and end.is_end:
            return end.tokens
        return max(0, reported.input + prompt.left_out)

    def _place(self, prompt: FollowedPrompt, whole: int) -> None:
        """Say how many tokens lie before each block that was new."""
        known, before = prompt.known, prompt.known_tokens
        first = prompt.ends[known - 1] if known else 0
        length = max(1, prompt.ends[-1] - first)
        for digest, end in zip(prompt.digests[known:], prompt.ends[known:], strict=True):
            block = self._blocks.get(digest)
            if block is not None and not block.is_end:
                block.tokens = before + round((whole - before) * (end - first) / length)
        last = self._blocks.get(prompt.digests[-1])
        if last is not None:
            last.is_end = True

    def _followed(
        self, digests: tuple[int, ...], ends: tuple[int, ...], now_s: float, *, sent: bool
    ) -> FollowedPrompt:
        """A prompt, with the blocks that came or were sent within the provider's time."""
        since_s, known, tokens = now_s - self._terms.ttl_s, 0, 0
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None or (block.sent_s if sent else block.came_s) < since_s:
                break
            known, tokens = known + 1, block.tokens
        return FollowedPrompt(digests, ends, known, tokens)

    def _use(self, prompt: FollowedPrompt, now_s: float, *, sent: bool) -> None:
        first = prompt.ends[prompt.known - 1] if prompt.known else 0
        for digest, end in zip(prompt.digests, prompt.ends, strict=True):
            block = self._blocks.pop(digest, None)
            if block is None:
                block = _Block(prompt.known_tokens + (end - first) // BYTES_PER_TOKEN)
            if sent:
                block.sent_s = now_s
            else:
                block.came_s = now_s
            self._blocks[digest] = block

    def _in_steps(self, tokens: int) -> int:
        step = self._terms.step_tokens
        return tokens // step * step if tokens >= self._terms.min_tokens else 0


def _blocks_of(
    key: CacheKey, conversation: Conversation
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chained digests of a prompt's blocks, and the characters up to the end of each. No block
    reaches over the end of a tool or turn.
    """
    digests, ends, digest, end = [], [], hash(key.owner), 0
    for text in _texts(key.settings, conversation):
        for start in range(0, len(text) or 1, BLOCK_CHARACTERS):
            piece = text[start : start + BLOCK_CHARACTERS]
            digest = hash((digest, piece))
            end += len(piece)
            digests.append(digest)
            ends.append(end)
    return tuple(digests), tuple(ends)


def _texts(settings: Mapping[str, str], conversation: Conversation) -> Iterator[str]:
    """A prompt in the order in which providers match prefixes."""
    yield "\n".join(f"{name}={settings[name]}" for name in sorted(settings))
    for tool in conversation.tools:
        yield f"{tool.name}\n{tool.description}\n{tool.parameters}"
    for turn in conversation.turns:
        is_long = len(turn.rest) > REST_BYTES
        rest = str(hash(turn.rest)) if is_long else turn.rest.decode("latin-1")
        yield f"{turn.role}\n{turn.tool_call_id}\n{turn.content}{rest}"
