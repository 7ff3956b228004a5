"""Anthropic's Messages, as clients of Anthropic speak it. Pure: bytes and values in and out."""
