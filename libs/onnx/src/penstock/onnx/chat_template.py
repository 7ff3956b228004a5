"""A conversation in the form that a decoder was trained on: its own chat template, run in a
sandbox. Rendering only, no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.onnx.card import BadModel
from penstock.onnx.session import BadInput

Turn = tuple[str, str]
"""Role and content."""
RenderChat = Callable[[Sequence[Turn]], str]
CONFIG, OWN_FILE = "tokenizer_config.json", "chat_template.jinja"


def load_template(folder: Path) -> RenderChat:
    """How the folder's model wants a conversation: its chat template, or one turn a line where it
    has none.

    Raises:
        BadModel: the template cannot be read.
    """
    text = _template_text(folder)
    if text is None:
        return lambda turns: "\n".join(content for _, content in turns)
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise BadModel(
            "a chat template needs jinja2; install the generate extra of penstock-onnx"
        ) from None
    try:
        template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
            text
        )
    except TemplateError as error:
        raise BadModel(
            f"{folder.name}: its chat template is none ({type(error).__name__})"
        ) from None
    special = _special_tokens(folder) | {"raise_exception": _refuse}

    def render(turns: Sequence[Turn]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as error:
            raise BadInput(f"the model's chat template refuses these turns ({error})") from None

    return render


def _template_text(folder: Path) -> str | None:
    own = folder / OWN_FILE
    if own.exists():
        return own.read_text(encoding="utf-8")
    found = _tokenizer_config(folder).get("chat_template")
    return found if isinstance(found, str) else None


def _special_tokens(folder: Path) -> dict[str, Any]:
    config = _tokenizer_config(folder)
    named = {
        name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    return {
        name: token["content"] if isinstance(token, dict) else str(token)
        for name, token in named.items()
        if token
    }


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise BadModel(f"{path}: is not JSON") from None
    return found if isinstance(found, dict) else {}


def _refuse(message: str) -> None:
    """What templates call where they cannot go on, for example when turns do not alternate."""
    from jinja2 import TemplateError

    raise TemplateError(message)
