"""Every fault of a configuration file, each with its line and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from penstock.service.settings import SECTIONS
from penstock.service.yaml_places import (
    TOP,
    Keys,
    Place,
    nearest_place,
    place_of_mark,
    repeated_keys,
)
from penstock.stack.config_schema import config_schema, known_keys
from penstock.stack.config_sections import section_classes
from penstock.stack.instance_groups import InstancesSection, model_problems
from pydantic import BaseModel, ValidationError

UNKNOWN_KEY = "extra_forbidden"


@dataclass(frozen=True, order=True)
class Problem:
    """One fault.

    Attributes:
        place: line and column, from 1.
        key: the key with those above it, joined by dots; empty for a fault of the file.
        message: what is wrong and what to do.
    """

    place: Place
    key: str
    message: str

    def line(self, path: Path) -> str:
        """The fault as compilers write it: `file:line:column: key: message`."""
        key = f"{self.key}: " if self.key else ""
        return f"{path}:{self.place.line}:{self.place.column}: {key}{self.message}"

    def as_json(self) -> dict[str, object]:
        """The fault for programs."""
        line, column = self.place
        return {"line": line, "column": column, "key": self.key, "message": self.message}


def check_file(path: Path, home: Path) -> list[Problem]:
    """Every fault of the file in the order of their places; none where it can be used.

    Args:
        home: folder of models, for the instances that the file names.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return [Problem(TOP, "", f"cannot be read ({error.strerror})")]
    except UnicodeDecodeError:
        return [Problem(TOP, "", "is not UTF-8")]
    try:
        root, content = yaml.compose(text), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        reason = " ".join(filter(None, (error.context, error.problem)))
        return [Problem(place_of_mark(error.problem_mark), "", f"is not YAML: {reason}")]
    except yaml.YAMLError as error:
        return [Problem(TOP, "", f"is not YAML: {' '.join(str(error).split())}")]
    return sorted(_problems(root, content, home))


def _problems(root: yaml.Node | None, content: object, home: Path) -> Iterator[Problem]:
    if content is None:
        return
    if not isinstance(content, Mapping):
        yield Problem(TOP, "", f"must hold sections: {', '.join(SECTIONS)}")
        return
    for keys, place in repeated_keys(root):
        yield Problem(place, _joined(keys), "stands twice; only the last one would count")
    classes = section_classes()
    for name, section in content.items():
        if name not in classes:
            yield Problem(
                nearest_place(root, [name]),
                str(name),
                f"unknown section{_nearest(str(name), SECTIONS)}",
            )
        elif section is not None:
            yield from _section_problems(root, name, section, classes[name])
    yield from _instance_problems(root, content.get("instances"), home)


def _section_problems(
    root: yaml.Node | None, name: str, section: object, kind: type[BaseModel]
) -> Iterator[Problem]:
    try:
        kind.model_validate(section)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            keys = (name, *item["loc"])
            yield Problem(nearest_place(root, keys), _joined(keys), _message(keys, dict(item)))


def _message(keys: Keys, item: Mapping[str, Any]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] != UNKNOWN_KEY:
        return message
    return f"unknown key{_nearest(str(keys[-1]), known_keys(config_schema(), keys))}"


def _instance_problems(root: yaml.Node | None, section: object, home: Path) -> Iterator[Problem]:
    """Models that are not there or too large; nothing where the section itself is wrong."""
    try:
        groups = InstancesSection.model_validate(section or []).root
    except ValidationError:
        return
    for below, message in model_problems(groups, home):
        keys = ("instances", *below)
        yield Problem(nearest_place(root, keys), _joined(keys), message)


def _nearest(name: str, known: Sequence[str]) -> str:
    """The nearest known name, or all of them where none is near."""
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(known)}" if known else ""


def _joined(keys: Keys) -> str:
    return ".".join(map(str, keys))
