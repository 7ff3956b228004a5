"""A local decoder through onnxruntime-genai: a conversation in, text out piece by piece.

The library comes with the `generate` extra. The tokenizer is the one that the other models use, so
a decoder's folder needs `tokenizer.json`; the form of the conversation is the model's own chat
template where the folder has one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.onnx.card import BadModel, ModelCard, read_card
from penstock.onnx.chat_template import RenderChat, Turn, load_template
from penstock.onnx.encoder import Floats, RunCancelled, load_tokenizer, never_cancelled
from penstock.onnx.genai import PROMPT_STEP_TOKENS, Generator, LibraryError, Model
from penstock.onnx.session import BadInput
from penstock.onnx.stop_strings import StopStrings
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

GENAI_CONFIG = "genai_config.json"


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens.

    `temperature` 0 takes the most probable one. `max_tokens` 0 means the default of the model's
    card, or else as many as the context has room for.
    """

    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text to append to the answer, and the tokens generated so far.

    `finish_reason`: "stop" or "length" on the last piece, "" on the others.
    """

    text: str
    tokens: int
    finish_reason: str = ""


@dataclass(frozen=True)
class Decoder:
    """A loaded decoder. Owner: whoever loaded it; nothing needs closing.

    Answers may be generated side by side; each has a key-value cache of its own.
    """

    card: ModelCard
    tokenizer: Tokenizer
    render: RenderChat
    end_tokens: frozenset[int]
    """Ids of the tokens that end an answer."""
    _model: Model

    @classmethod
    def load(cls, folder: Path, threads: int = 0) -> Decoder:
        """Load a decoder's folder. Its own `genai_config.json` names the execution providers.

        Args:
            threads: threads inside one operator; 0: one a physical core. Decoders of a process
                compute in turns, so that one may have them all.

        Raises:
            BadModel: the `generate` extra is not installed, or a file is not what the card or the
                library expects.
        """
        card = read_card(folder)
        if GENAI_CONFIG not in card.files:
            raise BadModel(f"{folder / GENAI_CONFIG}: is missing; a decoder's card names it")
        model = _load_model(folder, threads, card.model)
        tokenizer = load_tokenizer(folder, card.tokenizer)
        return cls(card, tokenizer, load_template(folder), _end_tokens(folder), model)

    def warm_up(self) -> None:
        """Generate one short answer, so that the first caller does not pay for first times."""
        for _ in self.generate(self.encode([("user", "warm")]), Sampling(max_tokens=2)):
            pass

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation in the model's form."""
        return list(self.tokenizer.encode(self.render(turns), add_special_tokens=False).ids)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> Iterator[Piece]:
        """The answer as it grows, a piece a token; the last piece says why it ended.

        Raises:
            RunCancelled: `cancelled` returned True between two tokens of the answer, or between
                two steps of the prompt; the cache is freed.
            BadInput: the library cannot compute this conversation.
        """
        room = self.card.max_input_tokens - len(prompt)
        default = self.card.default_output_tokens or self.card.max_input_tokens
        max_tokens = min(sampling.max_tokens or default, room)
        stops = StopStrings(sampling.stop)
        text_stream = DecodeStream(skip_special_tokens=True)
        generator = self._generator(len(prompt) + max_tokens, sampling)
        _append_prompt(generator, prompt, cancelled)
        for tokens in range(1, max_tokens + 1):
            if cancelled():
                raise RunCancelled
            token = generator.next_token()
            text = ""
            if token not in self.end_tokens:
                text = stops.push(text_stream.step(self.tokenizer, token) or "")
            if token in self.end_tokens or stops.is_found:
                yield Piece(text + stops.flush(), tokens, "stop")
                return
            if tokens == max_tokens:
                yield Piece(text + stops.flush(), tokens, "length")
                return
            yield Piece(text, tokens)

    def logits(self, tokens: Sequence[int], at_once: int = 1) -> Floats:
        """The logits after the first `at_once` tokens, which are computed together, and after each
        of the others, which are computed one by one.

        Raises:
            BadInput: the library cannot compute these tokens.
        """
        generator = self._generator(len(tokens) + 1, Sampling())
        rows = []
        for step in (tokens[:at_once], *([token] for token in tokens[at_once:])):
            _append_prompt(generator, step, never_cancelled)
            rows.append(generator.logits())
        return np.stack(rows)

    def _generator(self, max_length: int, sampling: Sampling) -> Generator:
        """A generator for `max_length` tokens, prompt and answer together."""
        search: dict[str, float | bool] = {
            "max_length": max_length,
            "do_sample": sampling.temperature > 0,
            "repetition_penalty": self.card.repetition_penalty,
        }
        if sampling.temperature > 0:
            search |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.seed is not None:
            search["random_seed"] = sampling.seed % (1 << 31)
        try:
            return self._model.generator(search)
        except LibraryError as error:
            raise BadInput("the model cannot continue this conversation") from error


def _append_prompt(
    generator: Generator, prompt: Sequence[int], cancelled: Callable[[], bool]
) -> None:
    """Compute a prompt in steps, between which it can be cancelled."""
    for start in range(0, len(prompt), PROMPT_STEP_TOKENS):
        if cancelled():
            raise RunCancelled
        try:
            generator.append(prompt[start : start + PROMPT_STEP_TOKENS])
        except LibraryError as error:
            raise BadInput("the model cannot continue this conversation") from error


def _load_model(folder: Path, threads: int, name: str) -> Model:
    try:
        return Model(folder, {"intra_op_num_threads": threads, "log_severity_level": 3})
    except ImportError:
        raise BadModel(
            "generating needs onnxruntime-genai; install the generate extra of penstock-onnx"
        ) from None
    except LibraryError as error:
        raise BadModel(f"{name}: onnxruntime-genai cannot load it ({error})") from error


def _end_tokens(folder: Path) -> frozenset[int]:
    path = folder / GENAI_CONFIG
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))["model"]["eos_token_id"]
        return frozenset(ids if isinstance(ids, list) else [ids])
    except (ValueError, KeyError, TypeError):
        raise BadModel(f"{path}: names no eos_token_id") from None
