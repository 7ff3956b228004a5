"""A conversation in the form that a decoder was trained on: its chat template, run in a sandbox.

Hugging Face models carry the template, in Jinja, in `chat_template.jinja` or in
`tokenizer_config.json`.
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
"""A conversation as one text, up to where the assistant is to go on.

Raises BadInput where the template does not take the conversation.
"""
TOKENIZER_CONFIG, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def load_template(folder: Path) -> RenderChat:
    """The chat template of a model folder; where there is none, the turns' contents, one a line.

    Raises:
        BadModel: the template cannot be read, or jinja2 is not installed.
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
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        template = environment.from_string(text)
    except TemplateError as error:
        raise BadModel(
            f"{folder.name}: its chat template is not valid Jinja ({type(error).__name__})"
        ) from None
    special = _special_tokens(folder) | {"raise_exception": _raise_template_error}

    def render(turns: Sequence[Turn]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as error:
            raise BadInput(
                f"the model's chat template does not take this conversation: {error}"
            ) from None

    return render


def _template_text(folder: Path) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = _tokenizer_config(folder).get("chat_template")
    return template if isinstance(template, str) else None


def _special_tokens(folder: Path) -> dict[str, Any]:
    """Text of the special tokens by name, which templates refer to."""
    config = _tokenizer_config(folder)
    tokens = {name: config[name] for name in SPECIAL_TOKENS if config.get(name)}
    return {
        name: token["content"] if isinstance(token, dict) else str(token)
        for name, token in tokens.items()
    }


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / TOKENIZER_CONFIG
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise BadModel(f"{path}: is not JSON") from None
    return config if isinstance(config, dict) else {}


def _raise_template_error(message: str) -> None:
    """What templates call to refuse a conversation, for example when turns do not alternate."""
    from jinja2 import TemplateError

    raise TemplateError(message)
