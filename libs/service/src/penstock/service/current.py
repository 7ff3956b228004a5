"""A value that is replaced when the configuration is read again, shared by all who read it."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Current(Generic[T]):
    """Holds the value in force. Readers ask each time and keep no copy."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def get(self) -> T:
        """The value in force."""
        return self._value

    def replace(self, value: T) -> None:
        """Put another value in force."""
        self._value = value
