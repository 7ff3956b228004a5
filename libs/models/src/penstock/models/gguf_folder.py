"""A model folder for `generate` from a GGUF file, for onnxruntime-genai and without torch.

The folder is made aside, its logits are compared with a forward pass in numpy of the file's own
weights, and it is put into the repository in one step.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from penstock.models.decoder import MAX_CONTEXT_TOKENS, MODEL_FILE, TOKENIZER_FILE
from penstock.models.export import OPSET
from penstock.models.gguf_file import LlamaFile, read_gguf
from penstock.models.gguf_tokenizer import end_tokens, special_tokens, tokenizer_of
from penstock.models.llama_graph import PAST_NAMES, PRESENT_NAMES, llama_graph
from penstock.models.llama_reference import reference_logits
from penstock.models.publish import publish_new
from penstock.models.quantize import machine
from penstock.onnx.card import BadModel, ModelCard, checksum, write_card
from penstock.onnx.chat_template import TEMPLATE_FILE, TOKENIZER_CONFIG
from penstock.onnx.decoder import GENAI_CONFIG, Decoder

MAX_GRAPH_BYTES = 2_000_000_000
"""A larger graph keeps its weights in a second file: protobuf ends at 2 GiB."""
DATA_FILE = f"{MODEL_FILE}.data"
CHECKED_PROMPTS = (
    "Hello",
    "What is the capital of France?",
    "Write one sentence about the 17 ships in the harbour.",
)
COMPUTED_AT_ONCE = 5
"""So many tokens of a checked prompt are computed together, the others one by one."""
MIN_COSINE = 0.99
"""Mean cosine of the logits below which nothing is published. Weights that are not rounded anew
give 0.99999; those in F16 less, since they are rounded to 8 bits.
"""
ShowStep = Callable[[str], None]


@dataclass(frozen=True)
class AnswerDefaults:
    """How an imported decoder answers where the caller does not say.

    `max_tokens` 0 means as many as the context has room for.
    """

    max_tokens: int = 512
    repetition_penalty: float = 1.1


def from_gguf(
    source: Path, target: Path, defaults: AnswerDefaults, licence: str, show_step: ShowStep
) -> ModelCard:
    """Write to `target` the decoder in the GGUF file `source`.

    Raises:
        BadModel: the file cannot be imported, or the graph's logits are not the file's; nothing is
            written.
    """
    show_step("reading the file")
    file = read_gguf(source)
    context = min(file.sizes.context, MAX_CONTEXT_TOKENS)
    with tempfile.TemporaryDirectory(prefix="penstock-gguf-") as scratch:
        folder = Path(scratch) / source.stem
        folder.mkdir()
        show_step("writing the graph")
        digest = checksum(source).sha256
        _write_files(folder, file, context, digest)
        place = target.resolve()
        kinds = sorted({matrix.kind for matrix in file.matrices.values()})
        card = ModelCard(
            name=place.parent.name,
            version=place.name,
            tasks=("generate",),
            model=MODEL_FILE,
            tokenizer=TOKENIZER_FILE,
            max_input_tokens=context,
            default_output_tokens=min(defaults.max_tokens, context),
            repetition_penalty=defaults.repetition_penalty,
            opset=OPSET,
            quantisation=f"{', '.join(kinds)}, blocks of 32",
            sources=(f"GGUF file {source.name}, SHA-256 {digest}",),
            licence=licence or str(file.metadata.get("general.license", "")),
            files={path.name: checksum(path) for path in sorted(folder.iterdir())},
            machine=machine(),
        )
        write_card(folder, card)
        show_step("comparing with the file")
        card = card.model_copy(update={"figures": _figures(folder, file, card)})
        write_card(folder, card)
        publish_new(folder, target)
    return card


def _write_files(folder: Path, file: LlamaFile, context: int, digest: str) -> None:
    """Everything but the card. `digest` stands in the graph, so that a revision names its weights
    also where they are in a second file.
    """
    tokenizer = tokenizer_of(file.metadata)
    special = special_tokens(file.metadata)
    files = {
        TOKENIZER_FILE: tokenizer.to_str(),
        TOKENIZER_CONFIG: json.dumps(special, indent=2),
        GENAI_CONFIG: json.dumps(_genai_config(file, context), indent=2),
    }
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        files[TEMPLATE_FILE] = template
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    model = llama_graph(file, context)
    onnx.helper.set_model_props(model, {"gguf_sha256": digest})
    is_large = model.ByteSize() > MAX_GRAPH_BYTES
    onnx.save(model, str(folder / MODEL_FILE), save_as_external_data=is_large, location=DATA_FILE)


def _genai_config(file: LlamaFile, context: int) -> dict[str, Any]:
    """What onnxruntime-genai needs to know of the graph."""
    sizes, ends = file.sizes, end_tokens(file.metadata)
    past, present = ([name.format("%d") for name in names] for names in (PAST_NAMES, PRESENT_NAMES))
    decoder = {
        "session_options": {"provider_options": []},
        "filename": MODEL_FILE,
        "head_size": sizes.head_size,
        "hidden_size": sizes.width,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "num_hidden_layers": sizes.layers,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": past[0],
            "past_value_names": past[1],
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": present[0],
            "present_value_names": present[1],
        },
    }
    model = {
        "type": "llama",
        "bos_token_id": int(file.metadata.get("tokenizer.ggml.bos_token_id", ends[0])),
        "eos_token_id": ends,
        "pad_token_id": int(file.metadata.get("tokenizer.ggml.padding_token_id", ends[0])),
        "vocab_size": sizes.vocabulary,
        "context_length": context,
        "decoder": decoder,
    }
    return {"model": model, "search": {"max_length": context, "past_present_share_buffer": True}}


def _figures(folder: Path, file: LlamaFile, card: ModelCard) -> dict[str, float]:
    """The folder's size, and how near its logits are to those of the file's own weights."""
    decoder = Decoder.load(folder)
    texts = [
        decoder.encode([("user", prompt)])[: card.max_input_tokens] for prompt in CHECKED_PROMPTS
    ]
    cosines: list[float] = []
    for tokens, logits in zip(texts, reference_logits(file, texts), strict=True):
        at_once = min(COMPUTED_AT_ONCE, len(tokens))
        computed = decoder.logits(tokens, at_once)
        expected = logits[at_once - 1 :]
        norms = np.linalg.norm(computed, axis=1) * np.linalg.norm(expected, axis=1)
        cosines += ((computed * expected).sum(1) / norms).tolist()
    mean = float(np.mean(cosines))
    if not mean >= MIN_COSINE:
        raise BadModel(
            f"the graph's logits differ from the file's: mean cosine {mean:.4f}, below the floor "
            f"{MIN_COSINE}; not published"
        )
    return {
        "bytes": float(sum(each.size_bytes for each in card.files.values())),
        "logit_cosine_mean": mean,
        "logit_cosine_min": min(cosines),
    }
