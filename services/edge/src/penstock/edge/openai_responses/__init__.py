"""OpenAI's Responses, as clients of OpenAI speak it. Pure but for the store of responses."""
