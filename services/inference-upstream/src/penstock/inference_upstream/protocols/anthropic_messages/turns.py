"""The turns of a conversation, as Anthropic's Messages have them. Pure: messages in, JSON out.

System turns at the head are blocks of `system`. The results of tools are blocks of the user's next
turn, before its text. Neighbouring turns of one role are one. What the model thought goes back to
it as it came and where it stood; empty texts are left out, since they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.inference_upstream.protocols.breakpoints import Breakpoints
from penstock.inference_upstream.protocols.request_fields import (
    base64_text,
    parse_object_field,
    parts_of,
    state_text,
)
from penstock.inference_upstream.switches import Switches
from penstock.service.purity import pure

Json = dict[str, Any]
THINKING, REDACTED = "anthropic.thinking", "anthropic.redacted_thinking"
BLOCK = "anthropic.block"
"""Format of a block that this protocol has and Penstock does not know; its state is its JSON."""
MARK = {"type": "ephemeral"}
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    pb.ROLE_SYSTEM: SYSTEM,
    pb.ROLE_USER: USER,
    pb.ROLE_TOOL: USER,
    pb.ROLE_ASSISTANT: ASSISTANT,
}


@pure
def system(task: pb.GenerateTask, switches: Switches, marked: Breakpoints) -> list[Json]:
    """The blocks of `system`: the system turns at the head of the conversation."""
    if switches.system_turns == "none":
        return []
    blocks: list[Json] = []
    for index in range(_head(task)):
        blocks += _content(index, task.messages[index], marked)
    return blocks


@pure
def turns(task: pb.GenerateTask, switches: Switches, marked: Breakpoints) -> list[Json]:
    """The turns after the system's head.

    Raises:
        Fault: INVALID_ARGUMENT naming a field that should be JSON and is not.
    """
    made: list[Json] = []
    start = 0 if switches.system_turns == "none" else _head(task)
    for index in range(start, len(task.messages)):
        message = task.messages[index]
        role = ROLES[message.role]
        if role == SYSTEM and switches.system_turns != "anywhere":
            role = USER
        blocks = _blocks(index, message, switches, marked)
        if not blocks:
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        else:
            made.append({"role": role, "content": blocks})
    for turn in made:
        # Stable: results first, the rest in order.
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return made


def _head(task: pb.GenerateTask) -> int:
    """Number of system turns at the beginning."""
    for index, message in enumerate(task.messages):
        if message.role != pb.ROLE_SYSTEM:
            return index
    return len(task.messages)


def _blocks(index: int, message: pb.Message, switches: Switches, marked: Breakpoints) -> list[Json]:
    if message.role == pb.ROLE_TOOL:
        return [_tool_result(index, message, marked)]
    if message.role != pb.ROLE_ASSISTANT:
        return _content(index, message, marked)
    said = _content(index, message, marked - {(index, None)})
    if not said and message.refusal:
        said = [{"type": "text", "text": message.refusal}]
    said += [
        _tool_use(call, f"task.generate.messages[{index}].tool_calls[{number}]")
        for number, call in enumerate(message.tool_calls)
    ]
    if said and (index, None) in marked:
        said[-1]["cache_control"] = MARK
    return list(_with_reasoning(index, said, message, switches))


def _with_reasoning(
    index: int, said: list[Json], message: pb.Message, switches: Switches
) -> Iterator[Json]:
    """What the model said, with what it thought at its places."""
    thoughts = [
        (block.position, _thought(block, f"task.generate.messages[{index}].reasoning[{number}]"))
        for number, block in enumerate(message.reasoning)
        if switches.reasoning_back and block.format in (THINKING, REDACTED, BLOCK)
    ]
    for position, block in enumerate(said):
        yield from (thought for place, thought in thoughts if place == position)
        yield block
    yield from (thought for place, thought in thoughts if place >= len(said))


def _thought(block: pb.Reasoning, at: str) -> Json:
    state = state_text(f"{at}.state", block.state)
    if block.format == THINKING:
        return {"type": "thinking", "thinking": block.text, "signature": state}
    if block.format == REDACTED:
        return {"type": "redacted_thinking", "data": state}
    return parse_object_field(f"{at}.state", state)


def _content(index: int, message: pb.Message, marked: Breakpoints) -> list[Json]:
    blocks = []
    for number, part in parts_of(message):
        blocks.append(_block(part))
        if (index, number) in marked:
            blocks[-1]["cache_control"] = MARK
    if blocks and (index, None) in marked:
        blocks[-1]["cache_control"] = MARK
    return blocks


def _block(part: pb.ContentPart) -> Json:
    kind = part.WhichOneof("part")
    if kind == "image":
        image = part.image
        return {"type": "image", "source": _source(image.url, image.media_type, image.data)}
    if kind == "file":
        file = part.file
        source = (
            {"type": "file", "file_id": file.file_id}
            if file.file_id
            else _source(file.url, file.media_type, file.data)
        )
        title = {"title": file.name} if file.name else {}
        return {"type": "document", "source": source, **title}
    return {"type": "text", "text": part.text}


def _source(url: str, media_type: str, data: bytes) -> Json:
    if url:
        return {"type": "url", "url": url}
    if media_type == "text/plain":
        return {"type": "text", "media_type": media_type, "data": data.decode("utf-8", "replace")}
    return {"type": "base64", "media_type": media_type, "data": base64_text(data)}


def _tool_use(call: pb.ToolCall, at: str) -> Json:
    arguments = parse_object_field(f"{at}.arguments_json", call.arguments_json)
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _tool_result(index: int, message: pb.Message, marked: Breakpoints) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": message.tool_call_id}
    content = _content(index, message, frozenset())
    is_text = len(content) == 1 and content[0]["type"] == "text" and not message.parts
    if content:
        block["content"] = content[0]["text"] if is_text else content
    if message.is_error:
        block["is_error"] = True
    if (index, None) in marked:
        block["cache_control"] = MARK
    return block
