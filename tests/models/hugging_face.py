"""Writes a tiny Hugging Face directory with random weights; needs torch and transformers.

python hugging_face.py KIND DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers as hf
from own_model import WORDS, write_tokenizer

SMALL = {"vocab_size": len(WORDS), "max_position_embeddings": 64}
BERT = {
    **SMALL,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
LABELS = {0: "yes", 1: "no", 2: "perhaps"}


def make_model(kind: str) -> hf.PreTrainedModel:
    if kind == "bert":
        return hf.BertModel(hf.BertConfig(**BERT))
    if kind == "distilbert":
        return hf.DistilBertModel(
            hf.DistilBertConfig(**SMALL, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
        )
    if kind == "bert-labels":
        return hf.BertForSequenceClassification(
            hf.BertConfig(**BERT, id2label=LABELS, num_labels=3)
        )
    if kind == "bert-pair":
        return hf.BertForSequenceClassification(hf.BertConfig(**BERT, num_labels=1))
    sizes = {**BERT, "hidden_size": 64, "num_key_value_heads": 2, "intermediate_size": 128}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2))


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(3)
    folder.mkdir(parents=True)
    make_model(kind).save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
