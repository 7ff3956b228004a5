"""Where a key stands in a YAML file, and which keys stand twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import yaml

Keys = Sequence[str | int]
"""Keys and list indices from the top of a file."""


class Place(NamedTuple):
    """A place in a file; both numbers count from 1."""

    line: int
    column: int


TOP = Place(1, 1)


def place_of(root: yaml.Node | None, keys: Keys) -> Place | None:
    """Where the key at the end of a key path stands; None where the file has no such key.

    Pydantic adds the tag of a union's member, which is in no file and therefore skipped.
    """
    node, place = root, None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            place = _start(node)
        elif isinstance(node, yaml.MappingNode):
            pairs = {name.value: (name, value) for name, value in node.value}
            if str(key) not in pairs:
                place = None
                continue
            name, node = pairs[str(key)]
            place = _start(name)
    return place


def nearest_place(root: yaml.Node | None, keys: Keys) -> Place:
    """Where the key stands, else the nearest key above it that is in the file."""
    lengths = range(len(keys), 0, -1)
    places = (place_of(root, keys[:length]) for length in lengths)
    return next((place for place in places if place is not None), TOP)


def repeated_keys(node: yaml.Node | None, above: Keys = ()) -> Iterator[tuple[Keys, Place]]:
    """Every key that stands a second time in its mapping, which YAML readers silently prefer."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from repeated_keys(item, (*above, index))
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for name, value in node.value:
            if name.value in seen:
                yield (*above, name.value), _start(name)
            seen.add(name.value)
            yield from repeated_keys(value, (*above, name.value))


def place_of_mark(mark: yaml.Mark | None) -> Place:
    """A place as PyYAML gives it, which counts from 0."""
    return TOP if mark is None else Place(mark.line + 1, mark.column + 1)


def _start(node: yaml.Node) -> Place:
    return place_of_mark(node.start_mark)
