"""A generate task as the conversation that `penstock.prompts` knows, and back."""

from __future__ import annotations

from penstock.api.inference.v1 import inference_pb2
from penstock.prompts.conversation import Conversation, ToolSpec, Turn
from penstock.prompts.prefix_history import MODEL
from penstock.tasks.answers import text_of
from penstock.tasks.roles import ROLE_NAMES, ROLES

CACHE_SETTINGS = ("tool_choice", "response_format", "reasoning", "parallel_tool_calls")
"""Fields of a task that providers' prefix caches go by: another value is another cache."""


def conversation_of(task: inference_pb2.GenerateTask) -> Conversation:
    """The conversation that a task continues."""
    turns = tuple([_turn(message) for message in task.messages])
    tools = tuple(
        ToolSpec(tool.name, tool.description, tool.parameters_json, tool.cache_breakpoint)
        for tool in task.tools
    )
    return Conversation(turns, tools)


def _turn(message: inference_pb2.Message) -> Turn:
    parts = message.parts
    return Turn(
        ROLE_NAMES[message.role],
        text_of(message),
        message.tool_call_id,
        message.cache_breakpoint or (bool(parts) and any(part.cache_breakpoint for part in parts)),
        # An assistant's turn that asks for tools is paired with its results.
        pinned=bool(message.tool_calls),
        fixed=bool(parts),
        rest=_rest(message),
    )


def task_of(task: inference_pb2.Task, shaped: Conversation) -> inference_pb2.Task:
    """The task with the shaped turns and tools; what the optimiser does not know of stays with its
    message or tool.
    """
    made = inference_pb2.Task()
    made.CopyFrom(task)
    made.generate.ClearField("wire_request")  # It holds the prompt as it came.
    messages = made.generate.messages
    for message, turn in zip(messages, shaped.turns, strict=False):
        if not turn.fixed:
            message.content = turn.content
    for turn in shaped.turns[len(messages) :]:  # volatile lines in a turn of their own
        messages.add(role=ROLES[turn.role], content=turn.content)
    tools = {tool.name: tool for tool in task.generate.tools}
    del made.generate.tools[:]
    for spec in shaped.tools:
        tool = made.generate.tools.add()
        tool.CopyFrom(tools[spec.name])
        tool.description, tool.parameters_json = spec.description, spec.parameters
        tool.cache_breakpoint = spec.breakpoint
    return made


def cache_settings(task: inference_pb2.GenerateTask, model: str) -> dict[str, str]:
    """What providers' prefix caches go by beside the text."""
    settings = {MODEL: model}
    for name in CACHE_SETTINGS:
        if task.HasField(name):
            settings[name] = str(getattr(task, name))
    return settings


def without_images(task: inference_pb2.GenerateTask, conversation: Conversation) -> list[bytes]:
    """The rest of each message that has images, without their bytes; empty where none has any."""
    if not any(turn.fixed for turn in conversation.turns):
        return []  # Only a message of several parts has images.
    return [
        _rest(_blank_images(message))
        if any(part.HasField("image") for part in message.parts)
        else b""
        for message in task.messages
    ]


def _blank_images(message: inference_pb2.Message) -> inference_pb2.Message:
    blank = inference_pb2.Message()
    blank.CopyFrom(message)
    for part in blank.parts:
        if part.HasField("image"):
            part.image.ClearField("source")
            part.image.ClearField("media_type")
    return blank


def _rest(message: inference_pb2.Message) -> bytes:
    """What a provider sees of a message beside its role, its text and the call that it answers;
    empty for nothing, as most messages have.
    """
    has_lists = message.tool_calls or message.parts or message.reasoning
    if not (has_lists or message.refusal or message.is_error or message.extra_json):
        return b""
    rest = inference_pb2.Message(
        tool_calls=message.tool_calls,
        parts=message.parts,
        refusal=message.refusal,
        reasoning=message.reasoning,
        is_error=message.is_error,
        extra_json=message.extra_json,
    )
    return rest.SerializeToString(deterministic=True)
