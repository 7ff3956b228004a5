"""The embedder is known from its card at the start, and its model is loaded with the first text."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from penstock.cache.lookups.semantic_lookup import SemanticLookup
from penstock.cache.semantic.embedder import Embedder, embedder_of
from penstock.cache.semantic.learning_log import LearningLog
from penstock.cache.semantic.semantic_cache import SemanticCache
from penstock.cache.settings import CacheSection
from penstock.onnx.card import BadModel, checksum
from penstock.onnx.encoder import TextModel
from penstock.service.clock import SystemClock
from penstock.service.current import Current
from penstock.service.default_models import ENCODER
from penstock.testkit.chats import chat, look_up_request

from .conftest import Rig

RUNTIME_OF = """
import pathlib, sys
from penstock.cache.semantic.embedder import embedder_of
embedder = embedder_of("model", pathlib.Path(sys.argv[1]))
print("onnxruntime" in sys.modules, "tokenizers" in sys.modules)
embedder.embed("a text")
print("onnxruntime" in sys.modules, "tokenizers" in sys.modules)
"""


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "models" / ENCODER / "1"


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A folder whose files are as its card says, and whose model no runtime can load."""
    made = tmp_path / "1"
    shutil.copytree(folder, made)
    card = json.loads((made / "card.json").read_text())
    (made / card["model"]).write_bytes(b"no model")
    card["files"][card["model"]] = checksum(made / card["model"]).model_dump()
    (made / "card.json").write_text(json.dumps(card))
    return made


def test_the_runtime_is_loaded_with_the_first_text(folder: Path) -> None:
    command = [sys.executable, "-c", RUNTIME_OF, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False", "True", "True"]


def test_vectors_are_the_models_own_with_length_1(folder: Path) -> None:
    embedder = embedder_of(ENCODER, folder)
    model = TextModel.load(folder)
    (expected,) = model.embed(["where is my order"])
    found = embedder.embed("where is my order")
    assert embedder.revision == f"{ENCODER}@1"
    assert found.shape == (embedder.width,)
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_model_that_differs_from_its_card_is_refused_at_the_start(
    folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "1"
    shutil.copytree(folder, changed)
    with (changed / "model.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BadModel, match="differs from its card"):
        embedder_of(ENCODER, changed)


def test_a_model_without_embeddings_is_refused_at_the_start(broken: Path) -> None:
    card = json.loads((broken / "card.json").read_text()) | {"dimension": 0}
    (broken / "card.json").write_text(json.dumps(card))
    with pytest.raises(BadModel, match="`dimension` is 0"):
        embedder_of(ENCODER, broken)


async def test_without_a_usable_model_exact_answers_are_served_and_it_is_said_once(
    broken: Path, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    # given a model whose files are in order and that cannot be loaded
    caplog.set_level(logging.ERROR)
    section = Current(CacheSection())
    cache = _semantic_cache(rig, section, embedder_of(ENCODER, broken))
    lookup = SemanticLookup(cache, b"secret", section, SystemClock())
    # when answers to two conversations are looked up by meaning
    request = look_up_request(chat("hello"))
    rules = {(await lookup.find("acme", request)).rule for _ in range(2)}
    await cache.close()
    # then both are told why not, and the log once
    assert rules == {"semantic_off: the embedder cannot be loaded"}
    assert [record.message.count("cannot be loaded") for record in caplog.records].count(1) >= 1
    assert sum("only exact answers" in record.message for record in caplog.records) == 1


def _semantic_cache(rig: Rig, section: Current[CacheSection], embedder: Embedder) -> SemanticCache:
    log = LearningLog(rig.client, section.value.lessons_bytes)
    return SemanticCache(log, section, embedder, Random(1), SystemClock())
