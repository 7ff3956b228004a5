"""A local decoder through onnxruntime-genai: a conversation in, text out piece by piece.

Only the `generate` extra has the library.

The tokenizer is the one the other models use, so a decoder folder needs `tokenizer.json`; the
conversation's form is the model's own chat template where the folder has one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from penstock.onnx.card import BadModel, ModelCard, read_card
from penstock.onnx.chat_template import RenderChat, Turn, load_template
from penstock.onnx.encoder import RunCancelled, load_tokenizer, never
from penstock.onnx.session import BadInput
from penstock.onnx.stop_strings import StopStrings
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

CONFIG = "genai_config.json"


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens.

    `temperature` 0 takes the most probable one; `max_tokens` 0 means as many as the context has
    room for.
    """

    max_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text to append, and the tokens made so far.

    `ended`: "" while there is more, "stop" or "length" on the last piece.
    """

    text: str
    tokens: int
    ended: str = ""


@dataclass(frozen=True)
class Decoder:
    """A loaded decoder.

    Owner: whoever loaded it; nothing needs closing. Answers may be generated side by side, each
    with its own cache.
    """

    card: ModelCard
    tokenizer: Tokenizer
    render: RenderChat
    ends: frozenset[int]
    """Tokens that end an answer."""
    _library: Any
    _model: Any

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Decoder:
        """Load a decoder folder. Execution providers are named in its own `genai_config.json`.

        Raises:
            BadModel: the `generate` extra is not installed, or a file is not what the card or the
                library wants.
        """
        try:
            import onnxruntime_genai as library
        except ImportError:
            raise BadModel(
                "generating needs onnxruntime-genai; install the generate extra of penstock-onnx"
            ) from None
        card = read_card(folder)
        if CONFIG not in card.files:
            raise BadModel(f"{folder / CONFIG}: is missing; a decoder's card names it")
        try:
            config = library.Config(str(folder))
            options = {"intra_op_num_threads": threads, "log_severity_level": 3}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            model = library.Model(config)
        except Exception as error:
            raise BadModel(
                f"{card.model}: onnxruntime-genai cannot load it ({type(error).__name__})"
            ) from error
        return cls(
            card,
            load_tokenizer(folder, card.tokenizer),
            load_template(folder),
            _ends(folder),
            library,
            model,
        )

    def warm_up(self) -> None:
        """One short answer, so that the first caller does not pay for first times."""
        for _ in self.generate(self.encode([("user", "warm")]), Sampling(max_tokens=2)):
            pass

    def encode(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation in the model's form."""
        return list(self.tokenizer.encode(self.render(turns), add_special_tokens=False).ids)

    def generate(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool] = never
    ) -> Iterator[Piece]:
        """The answer as it grows; the last piece says why it ended.

        Raises:
            RunCancelled: `cancelled` said so between two tokens; the cache is freed.
            BadInput: the library cannot compute this.
        """
        most = min(
            sampling.max_tokens or self.card.max_input_tokens,
            self.card.max_input_tokens - len(prompt),
        )
        stops, words = StopStrings(sampling.stop), DecodeStream(skip_special_tokens=True)
        generator = self._generator(prompt, sampling, most)
        for tokens in range(1, most + 1):
            if cancelled():
                raise RunCancelled
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            over = token in self.ends
            shown = "" if over else stops.show(words.step(self.tokenizer, token) or "")
            if over or stops.met or tokens == most:
                yield Piece(shown + stops.rest(), tokens, "stop" if over or stops.met else "length")
                return
            yield Piece(shown, tokens)

    def _generator(self, prompt: Sequence[int], sampling: Sampling, most: int) -> Any:
        search: dict[str, Any] = {
            "max_length": len(prompt) + most,
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            search |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.seed is not None:
            search["random_seed"] = sampling.seed % (1 << 31)
        try:
            options = self._library.GeneratorParams(self._model)
            options.set_search_options(**search)
            generator = self._library.Generator(self._model, options)
            generator.append_tokens(np.array(prompt, dtype=np.int32))
        except RuntimeError as error:
            raise BadInput("the model cannot continue this conversation") from error
        return generator


def _ends(folder: Path) -> frozenset[int]:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model"]["eos_token_id"]
        return frozenset(found if isinstance(found, list) else [found])
    except (ValueError, KeyError, TypeError):
        raise BadModel(f"{folder / CONFIG}: names no eos_token_id") from None
