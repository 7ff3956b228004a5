"""The ONNX graph of a BERT sentence encoder, written from its weights: no torch is needed.

The graph has the operators that onnxruntime computes fastest on a CPU: embeddings, attention and
GELU are fused, layer norms stand apart from the sums before them (see `layer_norm`). Pooling over a
text's tokens and L2 normalisation are part of it.

Devlin et al., "BERT" (2019); Reimers and Gurevych, "Sentence-BERT" (2019).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from penstock.models.export import INPUTS, OPSET
from penstock.models.graph_writer import CONTRIB, GraphWriter
from penstock.onnx.card import BadModel
from penstock.service.written_encoders import WEIGHTS_FILE, is_written_architecture

OUTPUT = "sentence_embedding"
MIN_TOKENS, MIN_NORM = 1e-9, 1e-12
"""Lower bounds of divisors, as sentence-transformers and torch have them."""
Weights = Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]


def write_bert(source: Path, target: Path, pooling: str = "mean") -> int:
    """Write the graph of the Hugging Face directory `source` to the file `target`; returns the
    number of layers.

    Raises:
        BadModel: a file cannot be read, a weight is missing, or it is not a BERT encoder with GELU.
    """
    config, weights = read_bert(source)
    onnx.save(bert_graph(config, weights, pooling), str(target))
    return int(config["num_hidden_layers"])


def read_bert(source: Path) -> tuple[dict[str, Any], Weights]:
    """What `config.json` says, and the weights by their names in a `BertModel`, in FP32.

    Raises:
        BadModel: one of the files cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        weights = load_file(source / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise BadModel(f"{source}: its weights cannot be read ({error})") from None
    return config, {_own_name(name): array.astype(np.float32) for name, array in weights.items()}


def _own_name(name: str) -> str:
    """A weight's name without the prefix of a model around the encoder, in the present spelling."""
    plain = name.removeprefix("bert.")
    return plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def bert_graph(
    config: Mapping[str, Any], weights: Weights, pooling: str = "mean"
) -> onnx.ModelProto:
    """The graph from token ids, mask and segments (rows, length) to embeddings (rows, width).

    Args:
        config: what `config.json` says.
        weights: by their names in a `BertModel`.
        pooling: `mean` over the tokens, or `cls` for the first one.

    Raises:
        BadModel: it is not a BERT encoder with GELU, or a weight is missing.
    """
    if not is_written_architecture(config):
        kind = [config.get(name) for name in ("model_type", "hidden_act")]
        raise BadModel(f"the encoder is {kind[0]} with {kind[1]}; only bert with gelu is written")
    writer = _BertWriter(config, weights, pooling)
    try:
        return writer.write()
    except KeyError as error:
        raise BadModel(f"the weights have no tensor {error}") from None


class _BertWriter:
    def __init__(self, config: Mapping[str, Any], weights: Weights, pooling: str) -> None:
        self._pooling = pooling
        self._graph = GraphWriter()
        self._weights = weights
        self._epsilon = float(config["layer_norm_eps"])
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._width = int(config["hidden_size"])

    def write(self) -> onnx.ModelProto:
        hidden, lengths = self._embeddings()
        for number in range(self._layers):
            hidden = self._layer(f"encoder.layer.{number}", hidden, lengths)
        self._pool(hidden)
        shape = ("rows", "length")
        return self._graph.model(
            "bert",
            dict.fromkeys(INPUTS, (TensorProto.INT64, shape)),
            {OUTPUT: (TensorProto.FLOAT, ("rows", self._width))},
            OPSET,
        )

    def _weight(self, name: str) -> str:
        return self._graph.constant(name, self._weights[name])

    def _transposed(self, name: str) -> str:
        """A weight as `MatMul` takes it; `torch.nn.Linear` keeps (outputs, inputs)."""
        return self._graph.constant(f"{name}.transposed", self._weights[name].T)

    def _embeddings(self) -> tuple[str, str]:
        """The normalised sums of the three embeddings, and each row's number of tokens."""
        ids, mask, segments = (
            self._graph.node("Cast", [name], f"{name}.int32", to=TensorProto.INT32)
            for name in INPUTS
        )
        tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        inputs = [ids, segments, *(self._weight(f"embeddings.{name}.weight") for name in tables)]
        inputs += [self._weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        outputs = self._graph.nodes(
            "EmbedLayerNormalization",
            [*inputs, mask],
            ["embeddings", "embeddings.lengths"],
            CONTRIB,
            epsilon=self._epsilon,
        )
        return outputs[0], outputs[1]

    def _layer(self, name: str, hidden: str, lengths: str) -> str:
        attended = self._attention(f"{name}.attention", hidden, lengths)
        hidden = self._linear_and_norm(f"{name}.attention.output", attended, hidden)
        inner = f"{name}.intermediate.dense"
        wide = self._graph.node("MatMul", [hidden, self._transposed(f"{inner}.weight")], inner)
        active = self._graph.node(
            "BiasGelu", [wide, self._weight(f"{inner}.bias")], f"{inner}.gelu", CONTRIB
        )
        return self._linear_and_norm(f"{name}.output", active, hidden)

    def _attention(self, name: str, hidden: str, lengths: str) -> str:
        parts = [f"{name}.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        inputs = [
            hidden,
            self._graph.constant(f"{name}.self.weight", weight),
            self._graph.constant(f"{name}.self.bias", bias),
            lengths,
        ]
        return self._graph.node("Attention", inputs, f"{name}.self", CONTRIB, num_heads=self._heads)

    def _linear_and_norm(self, name: str, inner: str, skip: str) -> str:
        dense, norm = f"{name}.dense", f"{name}.LayerNorm"
        product = self._graph.node("MatMul", [inner, self._transposed(f"{dense}.weight")], dense)
        biased = self._graph.node("Add", [product, self._weight(f"{dense}.bias")], f"{dense}.sum")
        total = self._graph.node("Add", [biased, skip], f"{name}.sum")
        inputs = [total, *(self._weight(f"{norm}.{part}") for part in ("weight", "bias"))]
        return self._graph.node("LayerNormalization", inputs, norm, axis=-1, epsilon=self._epsilon)

    def _pool(self, hidden: str) -> None:
        """The first token of each row, or the mean over its tokens, at length 1."""
        graph = self._graph
        pooled = self._first(hidden) if self._pooling == "cls" else self._mean(hidden)
        norm = graph.node("ReduceL2", [pooled], "pooling.norm", axes=[-1], keepdims=1)
        graph.node("Div", [pooled, self._at_least(norm, MIN_NORM)], OUTPUT)

    def _first(self, hidden: str) -> str:
        first = self._graph.constant("token.first", np.array([0]))
        tokens = self._graph.constant("axis.tokens", np.array([1]))
        column = self._graph.node("Gather", [hidden, first], "pooling.column", axis=1)
        return self._graph.node("Squeeze", [column, tokens], "pooling.first")

    def _mean(self, hidden: str) -> str:
        graph = self._graph
        last = graph.constant("axis.last", np.array([-1]))
        tokens = graph.constant("axis.tokens", np.array([1]))
        mask = graph.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        column = graph.node("Unsqueeze", [mask, last], "mask.column")
        kept = graph.node("Mul", [hidden, column], "pooling.kept")
        total = graph.node("ReduceSum", [kept, tokens], "pooling.sum", keepdims=0)
        count = graph.node("ReduceSum", [column, tokens], "pooling.count", keepdims=0)
        return graph.node("Div", [total, self._at_least(count, MIN_TOKENS)], "pooling.mean")

    def _at_least(self, name: str, bound: float) -> str:
        lowest = self._graph.constant(f"{name}.lowest", np.array(bound, dtype=np.float32))
        return self._graph.node("Max", [name, lowest], f"{name}.bounded")
