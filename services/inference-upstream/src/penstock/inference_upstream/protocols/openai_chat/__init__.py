"""OpenAI's chat completions, as OpenAI and the many servers that copy it speak it."""
