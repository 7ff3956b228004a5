"""The models that come with Penstock, by name: they are made on the first run and serve calls that
name no model.
"""

from __future__ import annotations

ENCODER = "all-MiniLM-L6-v2"
"""Serves `embed`, `classify`, `rerank` and `infer`."""
CHAT = "SmolLM2-135M-Instruct"
"""Serves `generate`."""
DEFAULT_MODELS = (ENCODER, CHAT)
