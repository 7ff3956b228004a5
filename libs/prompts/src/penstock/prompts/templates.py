"""Lossy and opt-in: a known long text is replaced by a shorter one that the operator wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """Wherever `part` stands, byte for byte, it is replaced by `text`; decisions have `name`."""

    name: str
    part: str
    text: str


def template_problems(templates: Sequence[Template]) -> list[str]:
    """What is wrong with templates that are to be used together; empty where nothing is."""
    problems = []
    names = [template.name for template in templates]
    for position, template in enumerate(templates):
        if template.name in names[:position]:
            problems.append(f"template {template.name!r} is defined twice")
        if len(template.text.encode()) >= len(template.part.encode()):
            problems.append(f"template {template.name!r}: text is not shorter than part")
        problems += [
            f"template {template.name!r}: text contains the part of template {other.name!r}, so it "
            "would be replaced again"
            for other in templates
            if other.part in template.text
        ]
    return problems


def apply_template(text: str, template: Template, templates: Sequence[Template]) -> str | None:
    """The text with the template's part replaced.

    None where the part is not there, or where the result would be changed again by a second pass:
    the text around a replacement may form a part anew.
    """
    if template.part not in text:
        return None
    shorter = text.replace(template.part, template.text)
    newly_possible = [other for other in templates if other.part not in text]
    forms_a_part = template.part in shorter or any(
        other.part in shorter for other in newly_possible
    )
    return None if forms_a_part else shorter
