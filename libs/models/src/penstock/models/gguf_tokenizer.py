"""The tokenizer of a GGUF file as the `tokenizers` library has it: byte-level BPE.

The file names how texts are split before merging (`tokenizer.ggml.pre`); the rule itself belongs to
the name, as llama.cpp's `llama-vocab.cpp` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.onnx.card import BadModel
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4
"""Types of tokens that are not merged from others."""
SPECIAL_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _llama3() -> Any:
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


PRE_TOKENIZERS: Mapping[str, Callable[[], Any]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _llama3,
}
WHOLE_WORDS_FIRST = ("llama-bpe",)
"""Rules under which a word that is itself a token is not put together from others."""


def tokenizer_of(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describe.

    Raises:
        BadModel: it is of another kind, splits texts by an unknown rule, or is not consistent.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise BadModel(f"its tokenizer is {kind}; only gpt2 (byte-level BPE) is imported")
    name = str(metadata.get("tokenizer.ggml.pre", "gpt-2"))
    if name not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise BadModel(f"its tokenizer splits texts by the rule {name}; known are {known}")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata.get("tokenizer.ggml.merges", ())]
    try:
        tokenizer = Tokenizer(
            models.BPE(
                vocab={token: number for number, token in enumerate(tokens)},
                merges=merges,
                ignore_merges=name in WHOLE_WORDS_FIRST,
            )
        )
    except Exception as error:  # the library raises nothing narrower
        raise BadModel(f"its tokenizer is not consistent ({error})") from None
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    tokenizer.decoder = decoders.ByteLevel()
    _add_tokens(tokenizer, tokens, metadata.get("tokenizer.ggml.token_type", ()))
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, tokens: list[str], kinds: Any) -> None:
    """Let the tokens that are never merged be found whole in a text."""
    pairs = list(zip(tokens, kinds, strict=False))
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in pairs
            if kind == CONTROL
        ]
    )
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False) for token, kind in pairs if kind == USER_DEFINED]
    )


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the special tokens, as chat templates refer to them."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {name: metadata.get(key) for name, key in SPECIAL_TOKENS.items()}
    return {name: tokens[number] for name, number in ids.items() if _is_token(number, tokens)}


def end_tokens(metadata: Mapping[str, Any]) -> list[int]:
    """Ids of the tokens that end an answer.

    Raises:
        BadModel: the file names none.
    """
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = [metadata.get(f"tokenizer.ggml.{name}") for name in END_TOKENS]
    known: list[Any] = [number for number in ids if _is_token(number, tokens)]
    if not known:
        raise BadModel("tokenizer.ggml.eos_token_id is missing; no answer would end")
    return list(dict.fromkeys(known))


def _is_token(number: Any, tokens: list[str]) -> bool:
    return isinstance(number, int) and 0 <= number < len(tokens)
