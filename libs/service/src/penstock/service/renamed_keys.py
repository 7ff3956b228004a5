"""Errors about keys of the configuration file that have a new name.

Pydantic refuses an unknown key as "extra input". For a key that was renamed, the user needs to
know the new name; these functions replace the one message by the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from penstock.service.yaml_places import place_of
from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

RENAMED_KEY = "renamed_key"
"""Pydantic's type of the error that a renamed key gives."""


def explain_renamed_keys(
    error: ValidationError, renamed: Mapping[str, str]
) -> ValidationError | None:
    """Return the errors of one section with the new names of renamed keys in their messages.

    A new key that is required and missing is left out where its old name is present.

    Args:
        error: what pydantic reported about the section.
        renamed: new names of the section's keys by old names.

    Returns:
        None where no key has a new name.
    """
    items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    found = {item["loc"][0] for item in items if _is_renamed(item, renamed)}
    if not found:
        return None
    satisfied = {(renamed[old],) for old in found}
    details = [
        _details(item, renamed)
        for item in items
        if not (item["type"] == "missing" and item["loc"] in satisfied)
    ]
    return ValidationError.from_exception_data(error.title, details)


def _is_renamed(item: Mapping[str, Any], renamed: Mapping[str, str]) -> bool:
    loc = item["loc"]
    return item["type"] == "extra_forbidden" and len(loc) == 1 and loc[0] in renamed


def _details(item: Mapping[str, Any], renamed: Mapping[str, str]) -> InitErrorDetails:
    kind, message = item["type"], item["msg"]
    if _is_renamed(item, renamed):
        kind, message = RENAMED_KEY, f"has a new name; write {renamed[item['loc'][0]]} instead"
    return InitErrorDetails(
        type=PydanticCustomError(kind, "{message}", {"message": message}),
        loc=item["loc"],
        input=item["input"],
    )


def line_of(path: Path, keys: Sequence[str | int]) -> int | None:
    """Return the line of the YAML file on which the key at the end of a key path stands.

    Args:
        path: a file that is YAML.
        keys: keys and list indices from the top; pydantic adds the tag of a union's member, which
            is in no file and therefore skipped.

    Returns:
        The line, counted from 1; None where the file has no such key.
    """
    place = place_of(yaml.compose(path.read_text(encoding="utf-8")), keys)
    return None if place is None else place.line
