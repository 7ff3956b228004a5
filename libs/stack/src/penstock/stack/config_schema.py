"""The JSON schema of the configuration file, for editors; made from the classes that read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.stack.config_sections import section_classes
from pydantic.json_schema import models_json_schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = Mapping[str, Any]


def config_schema() -> dict[str, Any]:
    """The schema; an empty section is allowed, as the services read it."""
    classes = section_classes()
    found, shared = models_json_schema([(kind, "validation") for kind in classes.values()])
    sections = {
        name: {"anyOf": [found[kind, "validation"], {"type": "null"}]}
        for name, kind in classes.items()
    }
    return {
        "$schema": DIALECT,
        "title": "Penstock configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
        "$defs": shared.get("$defs", {}),
    }


def schema_text() -> str:
    """The schema as it ships: deploy/penstock.schema.json."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def known_keys(schema: Schema, keys: Sequence[str | int]) -> list[str]:
    """The keys that may stand in the mapping that holds the key at the end of a key path."""
    places = [schema]
    for key in keys[:-1]:
        below = [inner for place in places for inner in _below(schema, place, key)]
        # The tag of a union's member, which pydantic adds to paths, is no key.
        places = below or places
    names = (
        name
        for place in places
        for each in _members(schema, place)
        for name in each.get("properties", {})
    )
    return list(dict.fromkeys(names))


def _below(root: Schema, place: Schema, key: str | int) -> Iterator[Schema]:
    """The schemas of what stands under a key or an index."""
    for each in _members(root, place):
        if isinstance(key, int):
            if isinstance(each.get("items"), Mapping):
                yield each["items"]
        elif key in each.get("properties", {}):
            yield each["properties"][key]
        elif isinstance(each.get("additionalProperties"), Mapping):
            yield each["additionalProperties"]


def _members(root: Schema, place: Schema) -> Iterator[Schema]:
    """The schema itself with references followed, or each member of a union."""
    if reference := place.get("$ref"):
        yield from _members(root, root["$defs"][reference.rpartition("/")[2]])
    elif union := place.get("anyOf") or place.get("oneOf"):
        for member in union:
            yield from _members(root, member)
    else:
        yield place
