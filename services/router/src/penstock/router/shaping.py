"""The prompt says the same in fewer tokens: `penstock.prompts` on a generate task, by tenant and model. Fails open to the bytes sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core.call import Principal
from penstock.core.config import BadConfig, Section
from penstock.core.prices import Prices
from penstock.prompts.conversation import Conversation, Policy, TokenCounter, ToolSpec, Turn
from penstock.prompts.optimiser import Optimiser
from penstock.router.stages import Shaped
from pydantic import Field

log = logging.getLogger(__name__)
TECHNIQUE = "prompt_optimiser"


class ShapingRule(Section):
    """What may be done for an organisation and a model; the first that fits counts. Lossy selection needs a `keep_share` below 1."""

    organisation: str = "*"
    model: str = "*"
    stable_prefix: bool = True
    lossless: bool = True
    named_values: bool = True
    keep_share: float = Field(1.0, gt=0, le=1)
    tokenizer_file: Path | None = None
    """The model's own `tokenizer.json`, which then counts tokens; without it they are estimated at four bytes each."""

    def policy(self) -> Policy:
        return Policy(self.stable_prefix, self.lossless, named_values=self.named_values, keep_share=self.keep_share)

    def optimiser(self) -> Optimiser:
        """The optimiser of this rule.

        Raises:
            BadConfig: the tokenizer's file cannot be used.
        """
        return Optimiser(self.policy(), token_counter(self.tokenizer_file) if self.tokenizer_file else None)


class PromptsSection(Section):
    """`prompts:` of the file; without a rule every generate task is shaped without loss."""

    rules: tuple[ShapingRule, ...] = (ShapingRule(),)


class PromptShape:
    """The shape stage. Holds one optimiser for each rule."""

    def __init__(self, section: PromptsSection, prices: Callable[[], Prices]) -> None:
        self._prices = prices
        self.replace(section)

    def replace(self, section: PromptsSection) -> None:
        """Put new rules in force."""
        self._rules = [(rule, rule.optimiser()) for rule in section.rules]

    def _optimiser(self, organisation: str, model: str) -> Optimiser | None:
        fitting = (
            one for rule, one in self._rules if rule.organisation in ("*", organisation) and rule.model in ("*", model)
        )
        return next(fitting, None)

    def shape(self, options: router_pb2.CallOptions, principal: Principal, task: inference_pb2.Task) -> Shaped:
        """Shape a generate task; anything else, and anything that goes wrong, stays as it is."""
        if task.WhichOneof("task") != "generate":
            return Shaped(task)
        optimiser = self._optimiser(principal.organisation, options.model)
        if optimiser is None:
            return Shaped(task)
        try:
            done = optimiser.optimise(_conversation(task.generate))
        except Exception:
            log.exception("a prompt was left as it was")
            return Shaped(task, notes=("prompt optimiser failed; the prompt is as it was sent",))
        if not any(decision.applied for decision in done.decisions):
            return Shaped(task)
        saved = done.tokens_before - done.tokens_after
        cost = (self._prices().most_microusd(options.model, saved, 0) or 0) if saved > 0 else 0
        saving = common_pb2.Saving(technique=TECHNIQUE, microusd=cost)
        applied = sorted({decision.transform for decision in done.decisions if decision.applied})
        counted = "estimated" if done.estimated else "counted by its tokenizer"
        note = f"prompt: {', '.join(applied)}; {done.tokens_before} to {done.tokens_after} tokens, {counted}"
        return Shaped(_task(task, done.conversation), (saving,) if cost else (), (note,))


def token_counter(path: Path) -> TokenCounter:
    """Counts a text's tokens with the tokenizer of that file, without the special ones that a template adds."""
    from tokenizers import Tokenizer  # loaded only where a rule names one

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more exact
        raise BadConfig([f"prompts.rules: tokenizer_file {path} cannot be used ({type(error).__name__})"]) from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _conversation(task: inference_pb2.GenerateTask) -> Conversation:
    turns = tuple(
        # An assistant's turn that asks for tools is paired with its results: its content is not to be touched.
        Turn(turn.role, turn.content, turn.tool_call_id, turn.cache_breakpoint, bool(turn.tool_calls))
        for turn in task.messages
    )
    return Conversation(
        turns, tuple(ToolSpec(tool.name, tool.description, tool.parameters_json) for tool in task.tools)
    )


def _task(task: inference_pb2.Task, shaped: Conversation) -> inference_pb2.Task:
    """The task with the shaped turns and tools; what the optimiser does not know of stays with its message or tool."""
    made = inference_pb2.Task()
    made.CopyFrom(task)
    if len(shaped.turns) == len(task.generate.messages):
        for message, turn in zip(made.generate.messages, shaped.turns, strict=True):
            message.role, message.content = turn.role, turn.content
    else:  # volatile lines were moved into a turn of their own
        del made.generate.messages[:]
        originals: Mapping[tuple[str, str], inference_pb2.Message] = {
            (message.role, message.tool_call_id): message for message in task.generate.messages if message.tool_call_id
        }
        calls = iter([message for message in task.generate.messages if message.tool_calls])
        for turn in shaped.turns:
            message = made.generate.messages.add(role=turn.role, content=turn.content, tool_call_id=turn.tool_call_id)
            message.cache_breakpoint = turn.breakpoint
            if turn.pinned:
                message.tool_calls.extend(next(calls).tool_calls)
        assert len(originals) <= len(made.generate.messages)
    tools = {tool.name: tool for tool in task.generate.tools}
    del made.generate.tools[:]
    for spec in shaped.tools:
        tool = made.generate.tools.add()
        tool.CopyFrom(tools[spec.name])
        tool.description, tool.parameters_json = spec.description, spec.parameters
    return made
