"""Anthropic's Messages, as Anthropic and the servers that copy it speak it."""
