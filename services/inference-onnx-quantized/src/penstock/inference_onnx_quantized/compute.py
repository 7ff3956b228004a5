"""Tasks computed on loaded models, each in a compute thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from penstock.api.inference.v1 import inference_pb2
from penstock.inference_onnx_quantized import generation, tensors
from penstock.inference_onnx_quantized.classification import (
    classify_by_examples,
    cosines,
    relevance,
    softmax,
    top_labels,
)
from penstock.inference_onnx_quantized.compute_threads import Cancelled
from penstock.inference_onnx_quantized.generation import EmitChunk, discard_chunk
from penstock.inference_onnx_quantized.repository import LoadedModel
from penstock.inference_onnx_quantized.request_checks import (
    FieldViolation,
    TaskLimits,
    check_examples,
    check_lengths,
    check_text_bytes,
    check_texts,
)
from penstock.inference_onnx_quantized.tensor_runs import FIELD, TensorRuns, plan_runs
from penstock.onnx.encoder import FREEING_CELLS, Encoded, Floats, RunCancelled
from penstock.onnx.session import Array, BadInput, OnnxSession
from penstock.rpc.errors import failed_precondition, internal, invalid
from penstock.tasks.kinds import CLASSIFY, EMBED, GENERATE, INFER, RERANK, kind_of
from penstock.tasks.rerank import ranking_of

QUERY_FIELD = "task.rerank.query"


@dataclass(frozen=True, slots=True)
class _Run:
    """A task on its way through a model; `result` is filled in."""

    model: LoadedModel
    limits: TaskLimits
    cancelled: Cancelled
    emit: EmitChunk
    result: inference_pb2.TaskResult


def compute(
    model: LoadedModel,
    task: inference_pb2.Task,
    limits: TaskLimits,
    cancelled: Cancelled,
    emit: EmitChunk = discard_chunk,
) -> inference_pb2.TaskResult:
    """Compute a task.

    Args:
        cancelled: called between two rows or tokens.
        emit: takes each chunk of a generated answer as soon as it is there.

    Raises:
        Fault: INVALID_ARGUMENT naming the field; INTERNAL where the model gives no numbers.
        RunCancelled: `cancelled` returned True.
    """
    kind = kind_of(task).name
    adapter = ADAPTERS.get(kind)
    if adapter is None or kind not in model.card.tasks:
        served = ", ".join(model.card.tasks)
        raise invalid("task", f"is {kind}; model {model.card.name} serves {served}")
    result = inference_pb2.TaskResult(revision=model.card.revision)
    adapter(_Run(model, limits, cancelled, emit, result), task)
    return result


def _vectors(run: _Run, texts: Sequence[str], field: str) -> Floats:
    """The model's output for each text, checked before and after; counts the tokens."""
    _raise_if(check_texts(texts, run.limits, field))
    return _outputs(run, run.model.encoder.encode(texts), field)


def _outputs(run: _Run, rows: Sequence[Encoded], field: str) -> Floats:
    lengths = [len(ids) for ids, _ in rows]
    _raise_if(check_lengths(lengths, run.limits, field))
    run.result.usage.input_tokens += sum(lengths)
    try:
        outputs = run.model.encoder.run(rows, run.cancelled, run.limits.max_cells)
    except BadInput as error:
        raise invalid(field, str(error)) from None
    if not all_finite(outputs):
        raise internal(
            f"model {run.model.card.name} gave NaN or infinite values for {field}; check its "
            "weights and the range of its FP16 layers"
        )
    return outputs


def _embed(run: _Run, task: inference_pb2.Task) -> None:
    for vector in _vectors(run, task.embed.texts, "task.embed.texts"):
        run.result.embed.embeddings.add().values.extend(vector.tolist())


def _classify(run: _Run, task: inference_pb2.Task) -> None:
    asked = task.classify
    example_labels = [example.label for example in asked.examples]
    _raise_if(check_examples(example_labels, run.model.card.labels))
    outputs = _vectors(run, asked.texts, "task.classify.texts")
    if example_labels:
        texts = [example.text for example in asked.examples]
        examples = _vectors(run, texts, "task.classify.examples")
        labels, probabilities = classify_by_examples(outputs, examples, example_labels)
    else:
        labels, probabilities = list(run.model.card.labels), softmax(outputs)
    for row in probabilities.tolist():
        classification = run.result.classify.classifications.add()
        for label, score in top_labels(row, labels, asked.top_k):
            classification.labels.add(label=label, score=score)


def _rerank(run: _Run, task: inference_pb2.Task) -> None:
    """Score each document with the query, by a model of pairs or by the cosine of embeddings."""
    asked = task.rerank
    _check_query(run, asked.query)
    if run.model.card.dimension:
        (query,) = _vectors(run, [asked.query], QUERY_FIELD)
        scores = cosines(query, _vectors(run, asked.documents, "task.rerank.documents"))
    else:
        try:
            scores = relevance(_pair_outputs(run, asked))
        except ValueError as error:
            raise failed_precondition("model", f"{run.model.card.name}: {error}") from None
    run.result.rerank.CopyFrom(ranking_of(scores.tolist(), asked.top_n))


def _check_query(run: _Run, query: str) -> None:
    if not query.strip():
        raise invalid(QUERY_FIELD, "is empty")
    _raise_if(check_text_bytes(query, run.limits, QUERY_FIELD))
    ((ids, _),) = run.model.encoder.encode([query])
    if len(ids) > run.limits.max_tokens:
        message = f"has {len(ids)} tokens; the model takes {run.limits.max_tokens}"
        raise invalid(QUERY_FIELD, message)


def _pair_outputs(run: _Run, asked: inference_pb2.RerankTask) -> Floats:
    field = "task.rerank.documents"
    _raise_if(check_texts(asked.documents, run.limits, field))
    pairs = [(asked.query, document) for document in asked.documents]
    return _outputs(run, run.model.encoder.encode_pairs(pairs), field)


def _generate(run: _Run, task: inference_pb2.Task) -> None:
    run.result.MergeFrom(
        generation.generate(run.model, task.generate, run.limits, run.cancelled, run.emit)
    )


def _infer(run: _Run, task: inference_pb2.Task) -> None:
    """Run the model on tensors as they are."""
    asked = task.infer
    max_bytes = run.limits.max_tensor_bytes
    if sum(len(tensor.data) for tensor in asked.inputs) > max_bytes:
        raise invalid("task.infer.inputs", f"take more than {max_bytes} bytes")
    session = run.model.encoder.session
    inputs = _input_arrays(session, asked)
    types = {spec.name: spec.type for spec in session.outputs}
    names = _output_names(types, asked)
    outputs = _tensor_outputs(run, inputs, names)
    if sum(array.nbytes for array in outputs) > max_bytes:
        raise invalid(
            "task.infer.outputs", f"would take more than {max_bytes} bytes; send fewer rows"
        )
    for name, array in zip(names, outputs, strict=True):
        datatype, data = tensors.encode(array, types[name])
        run.result.infer.outputs.add(name=name, datatype=datatype, shape=array.shape, data=data)


def _tensor_outputs(
    run: _Run, inputs: Mapping[str, Array], names: Sequence[str]
) -> Sequence[Array]:
    """The outputs of those names, computed in as many runs as rows and memory need."""
    encoder = run.model.encoder
    session = encoder.session
    wanted = [spec for spec in session.outputs if spec.name in names]
    shapes = {name: array.shape for name, array in inputs.items()}
    plan = plan_runs(
        session.inputs,
        wanted,
        shapes,
        rows_alone=encoder.scales_over_batch,
        limits=run.limits,
    )
    if isinstance(plan, FieldViolation):
        raise invalid(plan.field, plan.message)
    parts: list[list[Array]] = []
    for start in plan.starts:
        if run.cancelled():
            raise RunCancelled
        rows = slice(start, start + plan.run_rows)
        part = {
            name: array[rows] if name in plan.split else array for name, array in inputs.items()
        }
        try:
            parts.append(session.run(part, names, plan.cells >= FREEING_CELLS))
        except BadInput as error:
            raise invalid(FIELD, str(error)) from None
    return parts[0] if len(parts) == 1 else _joined(parts, plan)


def _joined(parts: Sequence[Sequence[Array]], plan: TensorRuns) -> list[Array]:
    """The outputs of all runs one after another, each with a row for each row of the inputs."""
    try:
        joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    except ValueError:
        raise invalid(
            FIELD, "give outputs of other shapes for other rows, which cannot be one tensor"
        ) from None
    if any(array.shape[0] != plan.rows for array in joined):
        raise invalid(
            FIELD,
            f"have {plan.rows} rows, which are computed one after another, and the model's outputs "
            "have not one row for each: send one row",
        )
    return joined


def _input_arrays(session: OnnxSession, task: inference_pb2.InferTask) -> dict[str, Array]:
    """The task's tensors as arrays by input name; every input of the model is there."""
    specs = {spec.name: spec for spec in session.inputs}
    arrays: dict[str, Array] = {}
    for index, tensor in enumerate(task.inputs):
        field = f"task.infer.inputs[{index}]"
        if tensor.name not in specs:
            known = ", ".join(specs)
            raise invalid(
                f"{field}.name", f"{tensor.name!r} is not an input; the model has {known}"
            )
        array = tensors.decode(tensor.datatype, tensor.shape, tensor.data, field)
        arrays[tensor.name] = tensors.match_spec(array, specs[tensor.name], field)
    missing = [name for name in specs if name not in arrays]
    if missing:
        raise invalid("task.infer.inputs", f"lack {', '.join(missing)}")
    return arrays


def _output_names(types: dict[str, str], task: inference_pb2.InferTask) -> list[str]:
    """The outputs that the task names; all of the model's where it names none."""
    for index, name in enumerate(task.outputs):
        if name not in types:
            known = ", ".join(types)
            raise invalid(
                f"task.infer.outputs[{index}]", f"{name!r} is not an output; the model has {known}"
            )
    return list(task.outputs) or list(types)


def _raise_if(violation: FieldViolation | None) -> None:
    if violation is not None:
        raise invalid(violation.field, violation.message)


ADAPTERS: Mapping[str, Callable[[_Run, inference_pb2.Task], None]] = {
    EMBED.name: _embed,
    CLASSIFY.name: _classify,
    GENERATE.name: _generate,
    INFER.name: _infer,
    RERANK.name: _rerank,
}
"""How this runtime computes each kind of task."""


def all_finite(values: Floats) -> bool:
    """True when no value is NaN or infinite."""
    return bool(np.isfinite(values).all())
