"""What the rest of the code needs of telemetry: spans and instruments as an interface, and the one that records nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from penstock.core.call import Call

Value = str | int | float | bool
Attributes = Mapping[str, Value]


class Span(Protocol):
    """A span that is open; `call` is the caller's Call with this span as parent, to be handed to the next hop."""

    @property
    def call(self) -> Call: ...

    def set(self, key: str, value: Value) -> None: ...

    def fail(self, code: str, reason: str = "") -> None: ...


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...


class Histogram(Protocol):
    """A distribution."""

    def record(self, value: float, attributes: Attributes | None = None) -> None: ...


class Telemetry(Protocol):
    """Makes spans and instruments. `kind` is internal, server or client."""

    def span(
        self, name: str, call: Call, *, kind: str = "internal", attributes: Attributes | None = None
    ) -> AbstractContextManager[Span]: ...

    def counter(self, name: str, unit: str, description: str) -> Counter: ...

    def histogram(self, name: str, unit: str, description: str) -> Histogram: ...

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None: ...


class _Nothing:
    """Span, counter and histogram that forget what they are told."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, key: str, value: Value) -> None: ...

    def fail(self, code: str, reason: str = "") -> None: ...

    def add(self, amount: float, attributes: Attributes | None = None) -> None: ...

    def record(self, value: float, attributes: Attributes | None = None) -> None: ...


class _NoTelemetry:
    def span(self, name: str, call: Call, *, kind: str = "internal", attributes: Attributes | None = None) -> _Nothing:
        return _Nothing(call)

    def counter(self, name: str, unit: str, description: str) -> _Nothing:
        return _Nothing(Call())

    def histogram(self, name: str, unit: str, description: str) -> _Nothing:
        return _Nothing(Call())

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], float]) -> None: ...


NO_TELEMETRY: Telemetry = _NoTelemetry()
"""Records nothing; for tests and tools."""
