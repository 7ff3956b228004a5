"""A message and a streamed one, by Anthropic's own package.

`make up` first, and `pip install anthropic`; then `python docs/examples/anthropic_messages.py`.
"""

from __future__ import annotations

import os

import anthropic

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ.get("PENSTOCK_MODEL", "SmolLM2-135M-Instruct")

with anthropic.Anthropic(base_url=ADDRESS, api_key=KEY) as client:
    message = client.messages.create(
        model=MODEL,
        max_tokens=40,
        messages=[{"role": "user", "content": "Where is Paris?"}],
        extra_headers={"x-penstock-run": "example", "x-penstock-step": "1"},
    )
    (block,) = message.content
    print(block.text if block.type == "text" else block.type)
    print(f"{message.usage.input_tokens} tokens in, {message.usage.output_tokens} out")

    with client.messages.stream(
        model=MODEL, max_tokens=40, messages=[{"role": "user", "content": "And Rome?"}]
    ) as stream:
        print("".join(stream.text_stream))
