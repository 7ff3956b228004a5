"""What each conversation's prompts lost of the providers' prefix caches, and why.

A prompt is compared with the one before it when it is sent, and judged when its answer is there.
Kept are digests of the last prompts and an account of the latest answers; no text of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.prices.prices import Prices
from penstock.prompts.conversation import Conversation
from penstock.prompts.prefix_breaks import OF_TOOLS, BreakKind, PrefixBreak
from penstock.prompts.prefix_cost import PrefixOutcome, PrefixRead, ReportedPrompt
from penstock.prompts.prefix_history import ComparedPrompt, PrefixHistory
from penstock.router.prompts.conversations import cache_settings, without_images
from penstock.router.requests.resolved import ResolvedRequest
from penstock.rpc.call import Call
from penstock.service.bounded_map import BoundedMap
from penstock.service.clock import Clock
from penstock.service.current import Current

ACCOUNTS_KEPT = 4096
"""Latest answered prompts that can be asked about."""
CACHING_KEPT = 4096
"""Models at instances of which it is known that they keep prefixes."""
LOSSES = frozenset(
    {
        PrefixOutcome.BROKEN,
        PrefixOutcome.MOVED,
        PrefixOutcome.EXPIRED,
        PrefixOutcome.EVICTED,
    }
)
"""What is said of a prefix that was not read."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """Settings of rules that mend broken prefixes without loss, by name.

    Attributes:
        enabled: those of the rule for a prompt.
        applied: of these, those that changed the prompt.
    """

    enabled: frozenset[str] = frozenset()
    applied: tuple[str, ...] = ()


NO_REPAIRS = Repairs()


class PrefixAccount(NamedTuple):
    """What became of the prefix of one prompt that was answered.

    Attributes:
        run_id: of the call; empty for none.
        affinity_key: of the call; empty for none.
        model: that answered.
        sent_unix_s: when it was sent.
        reported: what the provider reported; its id is the request's, its server the instance.
        read: what became of the prefix.
        lost_microusd: what the loss cost.
        broken: where it departs from the prompt before it, if it does.
        times: prompts in a row that broke there in the same way.
        since: the first of them.
        previous_id: request id of the prompt before it; empty for none.
        repairs: of the rule for it.
    """

    run_id: str
    affinity_key: str
    model: str
    sent_unix_s: float
    reported: ReportedPrompt
    read: PrefixRead
    lost_microusd: int
    broken: PrefixBreak | None
    times: int
    since: ReportedPrompt | None
    previous_id: str
    repairs: Repairs


class Prefixes:
    """Compares, judges and remembers prompts. An organisation sees its own."""

    def __init__(self, prices: Current[Prices], clock: Clock) -> None:
        self._prices = prices
        self._clock = clock
        self._history = PrefixHistory()
        self._caching: BoundedMap[tuple[str, str], None] = BoundedMap(CACHING_KEPT)
        """Models at instances that have reported tokens of a prefix cache."""
        self._accounts: BoundedMap[tuple[str, str], PrefixAccount] = BoundedMap(ACCOUNTS_KEPT)
        """By organisation and request id."""

    def sent(
        self,
        call: Call,
        request: ResolvedRequest,
        conversation: Conversation,
        repairs: Repairs = NO_REPAIRS,
    ) -> TrackedPrompt:
        """Compare a prompt that is about to be sent with the one before it.

        Args:
            call: the call.
            request: its request, with the task as it came.
            conversation: the prompt as it is sent.
            repairs: of the rule for it.
        """
        task = request.task.generate
        compared = self._history.compare(
            _session(call, request),
            conversation,
            cache_settings(task, request.model),
            without_images(task, conversation),
        )
        return TrackedPrompt(
            self, call, request.options.affinity_key, compared, self._clock.monotonic(), repairs
        )

    def at_model(self, sent: TrackedPrompt, model: str) -> TrackedPrompt:
        """The same prompt, sent to another model after all."""
        compared = self._history.at_model(sent.compared, model)
        return sent._replace(compared=compared, sent_s=self._clock.monotonic())

    def answered(self, sent: TrackedPrompt, reported: ReportedPrompt) -> PrefixAccount:
        """Judge a prompt that was answered, and remember it."""
        compared = sent.compared
        place = compared.place.model, reported.server
        if not reported.estimated and (reported.cached_tokens or reported.written_tokens):
            self._caching.put(place, None)
        caches = place in self._caching
        read = self._history.answered(compared, reported, caches=caches)
        lost_microusd = 0
        if read.outcome in LOSSES:
            lost_microusd = self._prices.value.lost_prefix_microusd(
                compared.place.model, read.lost_tokens, reported.written_tokens
            )
            if not (caches or lost_microusd):
                read = read._replace(outcome=PrefixOutcome.UNKNOWN)
        account = self._account(sent, reported, read, lost_microusd)
        self._accounts.put((sent.call.principal.organisation, reported.id), account)
        return account

    def of_request(self, organisation: str, request_id: str) -> PrefixAccount | None:
        """The account of one of an organisation's latest requests; None where there is none."""
        return self._accounts.peek((organisation, request_id))

    def of_conversation(self, organisation: str, name: str) -> Iterator[PrefixAccount]:
        """The accounts of an organisation's calls that named this run or affinity key, the oldest
        first.
        """
        for (owner, _), account in self._accounts.items():
            if owner == organisation and name in (account.run_id, account.affinity_key):
                yield account

    def _account(
        self, sent: TrackedPrompt, reported: ReportedPrompt, read: PrefixRead, lost_microusd: int
    ) -> PrefixAccount:
        compared = sent.compared
        age_s = self._clock.monotonic() - sent.sent_s
        first = compared.since or reported
        return PrefixAccount(
            sent.call.run_id,
            sent.affinity_key,
            compared.place.model,
            self._clock.time() - age_s,
            reported,
            read,
            lost_microusd,
            compared.broken,
            compared.times,
            first if compared.broken is not None else None,
            compared.previous.reported.id if compared.previous is not None else "",
            sent.repairs,
        )


class TrackedPrompt(NamedTuple):
    """A prompt on its way to a provider; a `stages.SentPrompt`."""

    prefixes: Prefixes
    call: Call
    affinity_key: str
    compared: ComparedPrompt
    sent_s: float
    repairs: Repairs

    @property
    def share(self) -> float:
        return self.compared.share

    def repairs_tools_of(self, as_it_came: TrackedPrompt) -> bool:
        """Whether this prompt, whose tools are in order, is worth more than the same as it came:
        that one's tools break the prefix, and these do not, or will not from the next prompt on.
        """
        broken, left = as_it_came.compared.broken, self.compared.broken
        if broken is None or broken.kind not in OF_TOOLS:
            return False
        is_mended = left is None or left.kind not in OF_TOOLS
        return is_mended or broken.kind is BreakKind.TOOLS_REORDERED

    def at_model(self, model: str) -> TrackedPrompt:
        return self.prefixes.at_model(self, model)

    def answered(
        self, request_id: str, instance_id: str, usage: common_pb2.Usage
    ) -> prefix_pb2.PrefixLoss | None:
        reported = ReportedPrompt(
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.written_input_tokens,
            self.sent_s,
            instance_id,
            request_id,
            usage.estimated,
        )
        account = self.prefixes.answered(self, reported)
        return loss_of(account) if account.read.outcome in LOSSES else None


def loss_of(account: PrefixAccount) -> prefix_pb2.PrefixLoss:
    """The loss as a receipt shows it."""
    loss = prefix_pb2.PrefixLoss(
        outcome=outcome_name(account.read.outcome),
        lost_tokens=account.read.lost_tokens,
        lost_microusd=account.lost_microusd,
    )
    if account.broken is not None and account.read.outcome is PrefixOutcome.BROKEN:
        loss.prefix_break.CopyFrom(break_to_proto(account.broken))
    return loss


def outcome_name(outcome: PrefixOutcome) -> str:
    """The outcome as the contract names it."""
    return f"PREFIX_OUTCOME_{outcome.name}"


def break_to_proto(broken: PrefixBreak) -> prefix_pb2.PrefixBreak:
    """The break as the contract has it."""
    return prefix_pb2.PrefixBreak(
        kind=f"PREFIX_BREAK_KIND_{broken.kind.name}",
        place=broken.place,
        role=broken.role,
        line=broken.line,
    )


def _session(call: Call, request: ResolvedRequest) -> Hashable:
    """The run or session of one user of one organisation."""
    named = request.options.affinity_key or call.run_id
    return call.principal.organisation, call.principal.user, named
