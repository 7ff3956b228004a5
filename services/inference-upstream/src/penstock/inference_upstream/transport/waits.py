"""How long a call may wait for what."""

from __future__ import annotations

from typing import NamedTuple

from penstock.inference_upstream.settings import Timeouts, Upstream, UpstreamModel

DEFAULTS = Timeouts(
    first_byte_timeout_ms=120_000, silence_timeout_ms=30_000, whole_timeout_ms=600_000
)


class Waits(NamedTuple):
    """The longest waits of a call, in seconds."""

    first_byte_s: float
    silence_s: float
    whole_s: float

    def for_whole_answer(self) -> Waits:
        """The waits of an answer that comes at once: it may take as long as it takes to make."""
        return self._replace(first_byte_s=self.whole_s)


def waits_of(upstream: Upstream, model: UpstreamModel) -> Waits:
    """The waits of a model's calls."""

    def seconds(name: str) -> float:
        for section in (model, upstream, DEFAULTS):
            value = getattr(section, name)
            if value is not None:
                return float(value) / 1e3
        raise AssertionError(f"{name} has a default")

    return Waits(
        seconds("first_byte_timeout_ms"),
        seconds("silence_timeout_ms"),
        seconds("whole_timeout_ms"),
    )
