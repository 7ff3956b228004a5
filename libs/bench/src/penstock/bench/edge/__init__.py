"""The HTTP edge, beside LiteLLM's proxy."""
