"""`make demo` in both shapes: every request is answered, and a trace goes through every service of
the path.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.stack.demo import demo
from penstock.stack.shapes import SHAPES, Layout, Shape
from rich.console import Console

pytestmark = [pytest.mark.processes]


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_demo_answers_every_request(home: Path, tmp_path: Path, shape: Shape) -> None:
    (tmp_path / "models").symlink_to(home / "models")
    figures = await demo(tmp_path, Console(quiet=True), Layout(shape))
    assert figures["requests"] == 400
    assert figures["errors"] == 0
    assert figures["services_in_trace"] >= 5
