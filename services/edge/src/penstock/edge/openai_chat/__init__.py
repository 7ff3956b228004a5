"""OpenAI's Chat Completions, as clients of OpenAI speak it. Pure: bytes and values in and out."""
