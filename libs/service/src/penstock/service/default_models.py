"""The models that come with Penstock, by name: they are made on the first run and serve calls that
name no model.
"""

from __future__ import annotations

from pathlib import Path

ENCODER = "all-MiniLM-L6-v2"
"""Serves `embed`, `classify`, `rerank` and `infer`."""
CHAT = "SmolLM2-135M-Instruct"
"""Serves `generate`."""
DEFAULT_MODELS = (ENCODER, CHAT)


def missing_model(home: Path) -> str:
    """What is missing of the default models in a home folder, and what to do; empty for nothing."""
    for model in DEFAULT_MODELS:
        if not (home / "models" / model / "1" / "card.json").exists():
            return f"model {model} is not in {home}; run `make model`"
    return ""
