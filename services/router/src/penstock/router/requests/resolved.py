"""A request as it will be served: which model, what, how large; what must be right in its options;
and the tasks that come again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.rpc.errors import Fault, invalid
from penstock.tasks.kind import Estimate, Kind
from penstock.tasks.kinds import EMBED, kind_of

MAX_NAME_BYTES = 128
NAMES = ("run_id", "step", "affinity_key")
PRIORITIES = frozenset(range(5))
Task = inference_pb2.Task
DIGEST_BYTES = 16


def check_options(options: router_pb2.CallOptions) -> None:
    """Raise INVALID_ARGUMENT for the first option that cannot be."""
    # No UTF-8 byte is more than a character's fourth part, so short names need not be encoded.
    if len(options.run_id) + len(options.step) + len(options.affinity_key) > MAX_NAME_BYTES // 4:
        _check_names(options)
    if options.priority not in PRIORITIES:
        raise invalid("options.priority", f"{options.priority} is not a priority; use 0 to 4")
    if options.HasField("max_cost_microusd") and options.max_cost_microusd < 0:
        raise invalid("options.max_cost_microusd", "is negative")
    if not 0 <= options.min_quality <= 1:
        raise invalid("options.min_quality", "must lie between 0 and 1")
    if options.HasField("cache"):
        _check_cache(options.cache)


def _check_names(options: router_pb2.CallOptions) -> None:
    for name in NAMES:
        if len(getattr(options, name).encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            raise invalid(f"options.{name}", f"is longer than {MAX_NAME_BYTES} bytes")


def _check_cache(policy: router_pb2.CachePolicy) -> None:
    if policy.HasField("max_error_rate") and not 0 <= policy.max_error_rate <= 1:
        raise invalid("options.cache.max_error_rate", "must lie between 0 and 1")
    if policy.max_age_ms < 0:
        raise invalid("options.cache.max_age_ms", "is negative")


class JobTry(NamedTuple):
    """One try of a job, which may be tried several times and is charged once."""

    job_id: str
    fence: int
    """Higher for each try."""

    def hold_id(self, model: str) -> str:
        """What every try of the job holds under, by model."""
        return hashlib.sha256(f"{self.job_id}\n{model}".encode()).hexdigest()[:48]


def with_ceiling_less(
    options: router_pb2.CallOptions, spent_microusd: int
) -> router_pb2.CallOptions:
    """The options under what is left of the caller's ceiling, if there is one."""
    if not options.HasField("max_cost_microusd"):
        return options
    lowered = router_pb2.CallOptions()
    lowered.CopyFrom(options)
    lowered.max_cost_microusd = max(0, options.max_cost_microusd - spent_microusd)
    return lowered


class ResolvedRequest(NamedTuple):
    """One task on its way: by which options, on which model, what, and how large."""

    options: router_pb2.CallOptions
    kind: Kind
    task: Task
    model: str
    estimate: Estimate
    spare_models: tuple[str, ...] = ()
    """Models to try in order when this one cannot serve."""
    model_note: str = ""
    """Why this model, where the caller left it open."""
    digest: bytes = b""
    """The task's digest, where it has been made."""
    job: JobTry | None = None
    """Of a job: which try of it this is."""
    is_escalation: bool = False
    """Whether a cheaper model has answered, and was not sure enough."""

    def with_task(self, task: Task) -> ResolvedRequest:
        """The same request of another task, whose digest has not been made."""
        return self._replace(task=task, digest=b"")

    @property
    def may_bring_answers(self) -> bool:
        """Whether an answer to it may be kept for others."""
        return not (self.options.cache.bypass or self.options.cache.no_store)


class SizedTask(NamedTuple):
    """A task that has been validated and measured; shared, so nobody may change it."""

    kind: Kind
    task: Task
    estimate: Estimate
    digest: bytes = b""


def sized(kind: Kind, task: Task, at: str) -> SizedTask:
    """Validate and measure a task; `at` is put before the names of its fields. Raises Fault."""
    kind.validate(task, at)
    return SizedTask(kind, task, kind.estimate(task))


def sized_any(task: Task) -> SizedTask:
    """The same for a task of any kind; its kind's name is part of the names of its fields."""
    kind = kind_of(task)
    return sized(kind, task, f"task.{kind.name}.")


def digest_of(task: Task) -> bytes:
    """What tells a task from any other."""
    body = task.SerializeToString(deterministic=True)
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


class RecentTexts:
    """The latest short texts to embed, as tasks: most exact hits are short texts that come again.

    A task that comes again is neither made nor validated nor hashed again.
    """

    max_characters = 512
    max_texts = 2_048

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, SizedTask] = OrderedDict()

    def sized(self, texts: Sequence[str]) -> SizedTask:
        """The embedding task of these texts.

        Raises:
            Fault: INVALID_ARGUMENT for the first text that cannot be.
        """
        if len(texts) != 1 or len(texts[0]) > self.max_characters:
            return sized(EMBED, Task(embed=inference_pb2.EmbedTask(texts=texts)), "")
        known = self._tasks.get(texts[0])
        if known is None:
            made = sized(EMBED, Task(embed=inference_pb2.EmbedTask(texts=texts)), "")
            known = self._tasks[texts[0]] = made._replace(digest=digest_of(made.task))
            if len(self._tasks) > self.max_texts:
                self._tasks.popitem(last=False)
        return known


def in_public_words(kind: Kind, fault: Fault) -> Fault:
    """A fault of an instance with the field as the public request calls it: `task.embed.texts[3]`
    becomes `texts[3]`.
    """
    field = kind.public_field(fault.field)
    if field == fault.field:
        return fault
    message = fault.message.replace(fault.field, field)
    return Fault(
        fault.reason,
        message,
        field=field,
        retry_after_s=fault.retry_after_s,
        provider_error=fault.provider_error,
        run=fault.run,
    )
