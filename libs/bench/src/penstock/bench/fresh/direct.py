"""Answers of onnxruntime-genai asked directly, in a process of its own: `python -m
penstock.bench.fresh.direct FOLDER`.

It reads a prompt a line, as a JSON array of token ids, and writes when the first token was there
and when the last: seconds since the prompt was read.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

MAX_TOKENS = 48
ALL_CORES = {"model": {"decoder": {"session_options": {"intra_op_num_threads": 0}}}}
"""As Penstock loads it; by itself the library takes half of the cores, and two thirds of the speed
on two.
"""


def answer(
    model: Any, tokenizer: Tokenizer, prompt: list[int], penalty: float
) -> tuple[float, float, int]:
    """Seconds to the first piece of text, to the last, and the number of tokens."""
    began_s = time.perf_counter()
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        max_length=len(prompt) + MAX_TOKENS, do_sample=False, repetition_penalty=penalty
    )
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(np.array(prompt, dtype=np.int32))
    text = DecodeStream(skip_special_tokens=True)
    first_s, tokens = 0.0, 0
    while tokens < MAX_TOKENS and not generator.is_done():
        generator.generate_next_token()
        tokens += 1
        piece = text.step(tokenizer, int(generator.get_next_tokens()[0]))
        if piece and not first_s:
            first_s = time.perf_counter() - began_s
    return first_s, time.perf_counter() - began_s, tokens


def main() -> None:
    """Serve standard input until it ends."""
    folder = Path(sys.argv[1])
    penalty = float(json.loads((folder / "card.json").read_text())["repetition_penalty"])
    config = onnxruntime_genai.Config(str(folder))
    config.overlay(json.dumps(ALL_CORES))
    model = onnxruntime_genai.Model(config)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for line in sys.stdin:
        print(json.dumps(answer(model, tokenizer, json.loads(line), penalty)), flush=True)


if __name__ == "__main__":
    main()
