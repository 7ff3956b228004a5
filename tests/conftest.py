"""What every test may use: the built model, and a folder that holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="session")
def home() -> Path:
    """The folder with the built model; `make model` makes it."""
    folder = Path(
        os.environ.get("PENSTOCK_HOME", Path(__file__).parents[1] / ".penstock")
    ).resolve()
    if not (folder / "models" / MODEL / "1" / "card.json").exists():
        pytest.fail("the default model is not there; run `make model`")
    return folder
