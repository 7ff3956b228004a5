"""A tiny decoder for tests: it continues with the next letter, after "z" with "ø", and then ends.

It has what a real one has: a key-value cache that grows, logits over a vocabulary, a tokenizer,
`genai_config.json`. Its last layer is a table of successors, so that its answers are known.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from penstock.onnx.card import ModelCard, checksum, write_card
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT_TOKENS = 4096
ENDLESS_CONTEXT_TOKENS = 1 << 20
"""So many that a test never waits for the end: its caller must end the answer."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_decoder(folder: Path, name: str = "letters", endless: bool = False) -> None:
    """Write a model folder for `generate`.

    Args:
        endless: "z" is followed by "a", so that an answer ends only by length, stop string or
            cancel.
    """
    folder.mkdir(parents=True)
    context = ENDLESS_CONTEXT_TOKENS if endless else CONTEXT_TOKENS
    vocabulary = {
        letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    end = vocabulary["<end>"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    chain = tokenizer.encode(LETTERS if endless else f"{LETTERS}ø").ids
    successors = np.full(len(vocabulary), chain[0])
    successors[chain] = [*chain[1:], chain[0] if endless else end]
    logits = np.zeros((len(vocabulary), len(vocabulary)), dtype=np.float32)
    logits[np.arange(len(vocabulary)), successors] = 20.0
    onnx.save(_graph(logits), str(folder / "model.onnx"))
    (folder / "genai_config.json").write_text(json.dumps(_config(len(vocabulary), end, context)))
    files = {
        file: checksum(folder / file)
        for file in ("model.onnx", "tokenizer.json", "genai_config.json")
    }
    card = ModelCard(
        name=name,
        version=folder.name,
        tasks=("generate",),
        model="model.onnx",
        tokenizer="tokenizer.json",
        max_input_tokens=context,
        files=files,
    )
    write_card(folder, card)


def _graph(logits: np.ndarray) -> onnx.ModelProto:  # type: ignore[type-arg]
    cache = ["batch", 1, "past", 1]
    value, width = helper.make_tensor_value_info, logits.shape[0]
    ids, mask = (
        value(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    )
    past = [
        value(f"past_key_values.0.{part}", TensorProto.FLOAT, cache) for part in ("key", "value")
    ]
    present = [value(f"present.0.{part}", TensorProto.FLOAT, cache) for part in ("key", "value")]
    nodes = [
        helper.make_node("Gather", ["successors", "input_ids"], ["logits"]),
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axes"], ["rows"]),
        *(
            helper.make_node(
                "Concat", [f"past_key_values.0.{part}", "rows"], [f"present.0.{part}"], axis=2
            )
            for part in ("key", "value")
        ),
    ]
    constants = [
        numpy_helper.from_array(logits, "successors"),
        numpy_helper.from_array(np.array([1, 3]), "axes"),
    ]
    answers = [value("logits", TensorProto.FLOAT, ["batch", "length", width]), *present]
    graph = helper.make_graph(nodes, "letters", [ids, mask, *past], answers, initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _config(vocabulary: int, end: int, context: int) -> object:
    kv = {
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    presents = {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "model.onnx",
        "head_size": 1,
        "hidden_size": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **kv},
        "outputs": {"logits": "logits", **presents},
    }
    about = {"type": "llama", "vocab_size": vocabulary, "context_length": context}
    ends = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    return {
        "model": {**about, **ends, "decoder": decoder},
        "search": {"max_length": context, "do_sample": False},
    }
