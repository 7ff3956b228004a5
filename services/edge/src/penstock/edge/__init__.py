"""The HTTP edge: clients of OpenAI and Anthropic, served by the router."""
