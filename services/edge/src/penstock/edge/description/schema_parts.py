"""Schemas from which those of requests and answers are put together. Pure."""

from __future__ import annotations

from typing import Any

from penstock.service.purity import pure

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
NUMBER: Schema = {"type": "number"}
TOKENS: Schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}


@pure
def word(*known: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(known)}


@pure
def between(least: float, most: float) -> Schema:
    """A number between two."""
    return {"type": "number", "minimum": least, "maximum": most}


@pure
def list_of(items: Schema, least: int = 0) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "minItems": least}


@pure
def either(*schemas: Schema) -> Schema:
    """What fits one of these."""
    return {"anyOf": list(schemas)}


@pure
def optional(schema: Schema) -> Schema:
    """The same, or a null, which is as good as absent."""
    return either(schema, {"type": "null"})


@pure
def record(required: dict[str, Schema], may: dict[str, Schema] | None = None) -> Schema:
    """An object with fields that it must have and fields that it may; others are taken too."""
    own = {name: optional(schema) for name, schema in (may or {}).items()}
    return {"type": "object", "required": list(required), "properties": {**required, **own}}


@pure
def ref(name: str) -> Schema:
    """A schema of the document, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}
