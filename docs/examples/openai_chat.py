"""A chat, whole and as events, and embeddings, by OpenAI's own package.

`make up` first, and `pip install openai`; then `python docs/examples/openai_chat.py`.
"""

from __future__ import annotations

import os

import openai

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ.get("PENSTOCK_MODEL", "SmolLM2-135M-Instruct")

with openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key=KEY) as client:
    whole = client.chat.completions.with_raw_response.create(
        model=MODEL,
        max_completion_tokens=40,
        messages=[{"role": "user", "content": "Where is Paris?"}],
        extra_headers={"x-penstock-run": "example", "x-penstock-step": "1"},
    )
    print(whole.parse().choices[0].message.content)
    print(whole.headers["x-penstock-receipt"])

    stream = client.chat.completions.create(
        model=MODEL,
        max_completion_tokens=40,
        messages=[{"role": "user", "content": "And Rome?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage:
            print(f"\n{chunk.usage.total_tokens} tokens")

    vectors = client.embeddings.create(model="all-MiniLM-L6-v2", input=["a fox", "a river"])
    print(f"{len(vectors.data)} vectors of {len(vectors.data[0].embedding)} values")
