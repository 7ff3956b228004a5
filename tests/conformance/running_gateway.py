"""The gateway that the tests talk to, as `penstock.bench.conformance` starts it."""

from __future__ import annotations

import os

EDGE = os.environ.get("PENSTOCK_EDGE", "")
KEY = os.environ.get("PENSTOCK_KEY", "")
OPENAI_MODEL = os.environ.get("CONFORMANCE_OPENAI_MODEL", "")
ANTHROPIC_MODEL = os.environ.get("CONFORMANCE_ANTHROPIC_MODEL", "")
EMBEDDING_MODEL = os.environ.get("CONFORMANCE_EMBEDDING_MODEL", "")
LOCAL_CHAT = os.environ.get("CONFORMANCE_LOCAL_CHAT", "")
LOCAL_ENCODER = os.environ.get("CONFORMANCE_LOCAL_ENCODER", "")

SCRIPTED = (OPENAI_MODEL, ANTHROPIC_MODEL)
"""The scripted models: each client's wire is the one's and is translated for the other."""
EVERY_MODEL = (*SCRIPTED, LOCAL_CHAT)
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""An image of one pixel, as base64."""
