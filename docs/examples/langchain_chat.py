"""A chat model of LangChain, whole and as pieces.

`make up` first, and `pip install langchain-openai`; then `python docs/examples/langchain_chat.py`.
"""

from __future__ import annotations

import os

from langchain_openai import ChatOpenAI

ADDRESS = os.environ.get("PENSTOCK_EDGE", "http://127.0.0.1:7086")
KEY = os.environ.get("PENSTOCK_KEY", "psk-development")
MODEL = os.environ.get("PENSTOCK_MODEL", "SmolLM2-135M-Instruct")

model = ChatOpenAI(
    model=MODEL,
    base_url=f"{ADDRESS}/v1",
    api_key=KEY,
    max_completion_tokens=40,
    stream_usage=True,  # LangChain asks other addresses than OpenAI's for no usage otherwise.
    default_headers={"x-penstock-run": "example"},
)
answer = model.invoke("Where is Paris?")
print(answer.text)
print(answer.usage_metadata)
for piece in model.stream("And Rome?"):
    print(piece.text, end="", flush=True)
print()
