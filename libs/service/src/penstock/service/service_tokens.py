"""The secrets by which services without certificates know each other.

Every pair of caller and callee has a secret of its own, so what one service holds does not let it
call as another. A secret is never sent: a caller proves that it holds it, by a keyed hash over its
own name and whom it calls (`penstock.rpc.auth`). Two secrets are accepted at a time while one is
replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

log = logging.getLogger(__name__)

OPERATOR = "operator"
MIN_SECRET_CHARACTERS = 16


class BadTokens(Exception):
    """The file cannot be used; the text holds no secret."""


class Tokens(Protocol):
    """What a service proves itself with, and whom it believes."""

    def sent_to(self, callee: str) -> str:
        """The secret shared with a callee; empty for none."""
        ...

    def accepted_from(self, caller: str) -> tuple[str, ...]:
        """The secrets by which a caller is known."""
        ...

    def operators(self) -> tuple[str, ...]:
        """The secrets that people and tools send as they are."""
        ...


class SharedToken:
    """One secret for all: whoever holds it may call as anybody. Empty: nobody may call."""

    def __init__(self, token: str) -> None:
        self._tokens = (token,) if token else ()

    def sent_to(self, callee: str) -> str:
        """See Tokens."""
        return self._tokens[0] if self._tokens else ""

    def accepted_from(self, caller: str) -> tuple[str, ...]:
        """See Tokens."""
        return self._tokens

    def operators(self) -> tuple[str, ...]:
        """See Tokens."""
        return self._tokens


class _Content(BaseModel):
    """What the file says."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    send: Mapping[str, SecretStr] = Field(default_factory=dict)
    accept: Mapping[str, tuple[SecretStr, ...]] = Field(default_factory=dict)


class TokenFile:
    """Secrets of a YAML file: `send` has one for each service that is called, `accept` one or two
    for each that calls, and for `operator`. It is read again when it changes.

    Raises:
        BadTokens: when it is made: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = self._changed_at()
        self._content = self._read()

    def sent_to(self, callee: str) -> str:
        """See Tokens."""
        secret = self._current().send.get(callee)
        return secret.get_secret_value() if secret is not None else ""

    def accepted_from(self, caller: str) -> tuple[str, ...]:
        """See Tokens."""
        accepted = self._current().accept.get(caller, ())
        return tuple(secret.get_secret_value() for secret in accepted)

    def operators(self) -> tuple[str, ...]:
        """See Tokens."""
        return self.accepted_from(OPERATOR)

    def _current(self) -> _Content:
        try:
            changed_at = self._changed_at()
            if changed_at != self._read_at:
                self._read_at = changed_at
                self._content = self._read()
        except BadTokens as error:
            log.error("new service tokens refused, the old ones stay: %s", error)
        return self._content

    def _changed_at(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise BadTokens(f"{self._path}: cannot be read ({error.strerror})") from None
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> _Content:
        try:
            content = _Content.model_validate(yaml.safe_load(self._path.read_bytes()) or {})
        except OSError as error:
            raise BadTokens(f"{self._path}: cannot be read ({error.strerror})") from None
        except yaml.YAMLError:
            raise BadTokens(f"{self._path}: is not YAML") from None
        except ValidationError as error:
            places = [".".join(map(str, each["loc"])) for each in error.errors()]
            raise BadTokens(f"{self._path}: {', '.join(places)}: unknown or no text") from None
        secrets = [
            *content.send.values(),
            *(one for each in content.accept.values() for one in each),
        ]
        if any(len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS for secret in secrets):
            raise BadTokens(
                f"{self._path}: a secret has less than {MIN_SECRET_CHARACTERS} characters"
            )
        return content
