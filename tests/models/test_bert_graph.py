"""The graph of the default encoder, written from weights, against a forward pass in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from penstock.models.bert_graph import bert_graph, write_bert
from penstock.models.bert_reference import BertReference
from penstock.models.quantize import to_fp16
from penstock.onnx.card import BadModel
from safetensors.numpy import save_file
from tiny_bert import CONFIG, random_weights

WEIGHTS = random_weights(np.random.default_rng(11))
TEXTS = [
    ([4, 7, 9, 1], [0, 0, 1, 1]),
    ([3], [0]),
    ([8, 2, 30, 44, 5, 6, 49], [0, 1, 1, 0, 0, 1, 0]),
]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_rows_of_any_length_are_embedded_as_by_numpy(pooling: str) -> None:
    session = onnxruntime.InferenceSession(
        bert_graph(CONFIG, WEIGHTS, pooling).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    longest = max(len(ids) for ids, _ in TEXTS)
    rows = {
        name: np.zeros((len(TEXTS), longest), dtype=np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for row, (ids, segments) in enumerate(TEXTS):
        rows["input_ids"][row, : len(ids)] = ids
        rows["attention_mask"][row, : len(ids)] = 1
        rows["token_type_ids"][row, : len(ids)] = segments
    (vectors,) = session.run(["sentence_embedding"], rows)
    reference = BertReference(CONFIG, WEIGHTS, pooling)
    expected = np.stack([reference.embed(*text) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_in_fp16_the_fused_graph_is_valid_and_answers_alike(tmp_path: Path) -> None:
    onnx.save(bert_graph(CONFIG, WEIGHTS), tmp_path / "fp32.onnx")
    to_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    graph = onnx.load(tmp_path / "fp16.onnx")
    onnx.checker.check_model(graph)
    matrices = [weight for weight in graph.graph.initializer if len(weight.dims) == 2]
    assert matrices
    assert all(weight.data_type == onnx.TensorProto.FLOAT16 for weight in matrices)
    ids = np.array([[4, 7, 9, 1]], dtype=np.int64)
    rows = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    answers = [
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(
            ["sentence_embedding"], rows
        )[0]
        for name in ("fp32.onnx", "fp16.onnx")
    ]
    assert answers[1].dtype == np.float32
    np.testing.assert_allclose(answers[1], answers[0], atol=5e-3)


def test_operators_are_fused_but_for_the_norms() -> None:
    counts = [node.op_type for node in bert_graph(CONFIG, WEIGHTS).graph.node]
    assert (counts.count("Attention"), counts.count("BiasGelu")) == (2, 2)
    assert (counts.count("EmbedLayerNormalization"), counts.count("LayerNormalization")) == (1, 4)


def write_source(folder: Path) -> Path:
    """A Hugging Face directory of the random model."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(WEIGHTS, folder / "model.safetensors")
    return folder


def test_a_directory_is_written_as_one_file(tmp_path: Path) -> None:
    assert write_bert(write_source(tmp_path), tmp_path / "model.onnx") == 2
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").get_outputs()[0].shape[1] == 32


def test_what_is_not_a_bert_encoder_is_refused() -> None:
    with pytest.raises(BadModel, match="roberta with gelu"):
        bert_graph({**CONFIG, "model_type": "roberta"}, WEIGHTS)
    missing = {name: array for name, array in WEIGHTS.items() if "layer.1.output" not in name}
    with pytest.raises(BadModel, match=r"no tensor 'encoder\.layer\.1\.output\.dense\.weight'"):
        bert_graph(CONFIG, missing)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_cut_files_are_refused(tmp_path: Path, name: str) -> None:
    path = write_source(tmp_path) / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadModel, match="its weights cannot be read"):
        write_bert(tmp_path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
