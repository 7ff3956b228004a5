"""How long the scripted upstream takes: the time of the prompt by the tokens that its prefix cache
does not have, and the time of the answer by its tokens and by how many answers are made at once.

The points are means of SageServe's measurements of Llama 2 70B on eight H100 (`perf_model.csv`, 10
to 30 runs each; Jaiswal et al., 2025), with straight lines between them and beyond the last two.
"""

from __future__ import annotations

from collections.abc import Sequence

PROMPT_MS = ((512, 62.0), (1024, 90.1), (2048, 157.1), (4096, 435.4), (8192, 975.6))
"""Prompt tokens, and milliseconds until the first token."""
TOKEN_MS = ((1, 30.0), (2, 30.1), (4, 31.8), (8, 32.4), (16, 34.2), (32, 38.9), (64, 50.0))
"""Answers at once, and milliseconds for each further token."""
SLOTS = 8
"""Answers that the upstream makes at once; further requests wait in their order."""


def service_ms(uncached_tokens: int, output_tokens: int, batch: int) -> float:
    """Milliseconds from the moment at which an answer is begun to its end.

    Args:
        uncached_tokens: of the prompt, without those that the prefix cache had.
        output_tokens: of the answer.
        batch: answers that are made at the same time, this one included.
    """
    return _between(PROMPT_MS, uncached_tokens) + output_tokens * _between(TOKEN_MS, batch)


def capacity(services_ms: Sequence[float]) -> float:
    """Answers a second that the upstream gives at most, for services that were measured with all
    slots busy.
    """
    return SLOTS / (sum(services_ms) / len(services_ms) / 1e3)


def _between(points: Sequence[tuple[int, float]], x: float) -> float:
    """The value at x; before the first point that point's, beyond the last two on their line."""
    if x <= points[0][0]:
        return points[0][1]
    last = len(points) - 1
    upper = next((at for at, point in enumerate(points) if x <= point[0]), last)
    (x0, y0), (x1, y1) = points[upper - 1], points[upper]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
