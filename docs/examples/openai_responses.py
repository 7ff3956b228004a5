"""Two responses, the second of which goes on from the first, by OpenAI's own package.

`make up` first, and `pip install openai`; then `python docs/examples/openai_responses.py`.
"""

from __future__ import annotations

import os

import openai

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ.get("PENSTOCK_MODEL", "SmolLM2-135M-Instruct")

with openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key=KEY) as client:
    first = client.responses.create(model=MODEL, input="Where is Paris?", max_output_tokens=40)
    print(first.output_text)
    events = client.responses.create(
        model=MODEL,
        input="And Rome?",
        previous_response_id=first.id,
        max_output_tokens=40,
        stream=True,
    )
    for event in events:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
        elif event.type in ("response.completed", "response.incomplete"):
            second = event.response  # Incomplete: the length came before the end.
            print()
    items = client.responses.input_items.list(second.id)
    print(f"{len(items.data)} items before it")
    client.responses.delete(second.id)
