"""Lossy and opt-in: a known long part of a prompt, said in the shorter words that the operator
wrote for it. Exact text only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """`part`, wherever it stands byte for byte, becomes `text`; `name` is what the record says."""

    name: str
    part: str
    text: str


def faults_of(templates: Sequence[Template]) -> list[str]:
    """What is wrong with templates that would be in force together; empty where nothing is."""
    wrong = []
    names = [template.name for template in templates]
    for place, template in enumerate(templates):
        if template.name in names[:place]:
            wrong.append(f"template {template.name!r} stands there twice")
        if len(template.text.encode()) >= len(template.part.encode()):
            wrong.append(f"template {template.name!r}: text is not shorter than part")
        wrong += [
            f"template {template.name!r}: text holds the part of template {other.name!r}, so "
            "it would change again"
            for other in templates
            if other.part in template.text
        ]
    return wrong


def replaced(text: str, template: Template, templates: Sequence[Template]) -> str | None:
    """The text with the part replaced; None where it is not there, or where what comes out would be
    changed again.
    """
    if template.part not in text:
        return None
    shorter = text.replace(template.part, template.text)
    # Text around the replacement may form a part anew: a second pass would then differ from the
    # first.
    known = [other for other in templates if other.part in text]
    formed = template.part in shorter or any(
        other.part in shorter for other in templates if other not in known
    )
    return None if formed else shorter
