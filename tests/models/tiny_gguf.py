"""A tiny llama decoder in a GGUF file, of random weights and a tokenizer of single bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from tokenizers import pre_tokenizers

WIDTH, INNER, HEADS, KV_HEADS, LAYERS, CONTEXT = 64, 96, 4, 2, 2, 128
HEAD_SIZE = WIDTH // HEADS
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "<start>", "<end>"]
END = TOKENS.index("<end>")
TEMPLATE = (
    "{% for m in messages %}<start>{{ m.role }}:{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant:{% endif %}"
)


@dataclass(frozen=True)
class TinyGguf:
    """What is in the file.

    Attributes:
        kind: quantisation of the matrices.
        kinds: quantisations of single tensors, by name.
        has_head: whether the logits have a matrix of their own.
        without: tensors that are left out.
        extra: further tensors.
        metadata: entries in place of the usual ones.
    """

    kind: str = "Q4_1"
    kinds: Mapping[str, str] = field(default_factory=dict)
    has_head: bool = False
    without: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = "llama"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        """Write the file; returns its path."""
        writer = gguf.GGUFWriter(path, self.architecture)
        entries = {**_entries(), **self.metadata}
        for name, value in entries.items():
            _add_entry(writer, name, value)
        for name, array in {**self._tensors(), **self.extra}.items():
            if name not in self.without:
                self._add_tensor(writer, name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def of(self, **changes: Any) -> TinyGguf:
        """The same with changes."""
        return replace(self, **changes)

    def _tensors(self) -> dict[str, Any]:
        rng = np.random.default_rng(17)
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH)}
        if self.has_head:
            shapes["output.weight"] = (len(TOKENS), WIDTH)
        kept = KV_HEADS * HEAD_SIZE
        for number in range(LAYERS):
            layer = {
                "attn_q": (WIDTH, WIDTH),
                "attn_k": (kept, WIDTH),
                "attn_v": (kept, WIDTH),
                "attn_output": (WIDTH, WIDTH),
                "ffn_gate": (INNER, WIDTH),
                "ffn_up": (INNER, WIDTH),
                "ffn_down": (WIDTH, INNER),
                "attn_norm": (WIDTH,),
                "ffn_norm": (WIDTH,),
            }
            shapes |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
        shapes["output_norm.weight"] = (WIDTH,)
        return {
            name: rng.normal(0.05, 0.3, shape).astype(np.float32) for name, shape in shapes.items()
        }

    def _add_tensor(self, writer: gguf.GGUFWriter, name: str, array: Any) -> None:
        kind = self.kinds.get(name, self.kind if array.ndim == 2 else "F32")
        quantisation = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, quantize(array, quantisation), raw_dtype=quantisation)


def _entries() -> dict[str, Any]:
    """The metadata of a usual file, by name."""
    kinds = [1] * (len(TOKENS) - 2) + [3, 3]
    return {
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500.0,
        "general.license": "apache-2.0",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.chat_template": TEMPLATE,
    }


def _add_entry(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    match value:
        case None:
            return
        case str():
            writer.add_string(name, value)
        case list():
            writer.add_array(name, value)
        case float():
            writer.add_float32(name, value)
        case int():
            writer.add_uint32(name, value)
        case _:
            raise TypeError(name)
