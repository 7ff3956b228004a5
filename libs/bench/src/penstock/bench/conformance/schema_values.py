"""A value that a JSON schema allows, as a model with structured output would give one. Pure.

Only what clients' own schemas use: types, enum, const, anyOf, $ref to `$defs`, and minimums. A
number is the first one of the prompt and a text the first that it quotes, so that a tool that is to
be called with 3 is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
NUMBER = re.compile(r"-?\d+")
QUOTED = re.compile(r"'([^']+)'")
WORD = "scripted"


def value_of(schema: Schema, prompt: str, root: Schema | None = None) -> Any:
    """A value of the schema; `root` is where its references begin."""
    root = schema if root is None else root
    if "$ref" in schema:
        return value_of(_referenced(schema["$ref"], root), prompt, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return value_of(schema[key][0], prompt, root)
    return _of_type(schema, prompt, root)


def object_named_in(prompt: str) -> dict[str, str]:
    """Any JSON object: its keys are the texts that the prompt quotes."""
    return dict.fromkeys(QUOTED.findall(prompt) or ["answer"], WORD)


def _referenced(reference: str, root: Schema) -> Schema:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part] if part != "#" else found
    return found if isinstance(found, Mapping) else {}


def _of_type(schema: Schema, prompt: str, root: Schema) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: value_of(each, prompt, root) for name, each in properties.items()}
    if kind == "array":
        return [value_of(schema["items"], prompt, root)] if "items" in schema else []
    if kind in ("integer", "number"):
        found = NUMBER.search(prompt)
        return int(found.group()) if found else schema.get("minimum", 1)
    if kind == "string":
        quoted = QUOTED.search(prompt)
        return quoted.group(1) if quoted else WORD
    return {"boolean": True, "null": None}[kind]
