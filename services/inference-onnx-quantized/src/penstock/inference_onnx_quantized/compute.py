"""The workshop: tasks run on loaded models.

Decides nothing about what may be asked; whose thread this is, `runner` says.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.api.inference.v1 import inference_pb2
from penstock.inference_onnx_quantized import classification as policy
from penstock.inference_onnx_quantized import generation, tensors
from penstock.inference_onnx_quantized.classification import FieldViolation, TextLimits
from penstock.inference_onnx_quantized.compute_threads import Cancelled
from penstock.inference_onnx_quantized.generation import EmitChunk, discard_chunk
from penstock.inference_onnx_quantized.repository import LoadedModel
from penstock.onnx.encoder import Encoded, Floats
from penstock.onnx.session import BadInput
from penstock.rpc.errors import internal, invalid


def compute(
    loaded: LoadedModel,
    task: inference_pb2.Task,
    limits: TextLimits,
    cancelled: Cancelled,
    show: EmitChunk = discard_chunk,
) -> inference_pb2.TaskResult:
    """Run a task on a model, in a thread. `show` is given what is generated, piece by piece.

    Raises:
        Fault: INVALID_ARGUMENT naming the field.
        RunCancelled: `cancelled` said so between two rows.
    """
    kind = task.WhichOneof("task")
    if kind not in loaded.card.tasks:
        served = ", ".join(loaded.card.tasks)
        raise invalid(
            "task", f"{kind or 'nothing'} is asked for; {loaded.card.name} serves {served}"
        )
    result = inference_pb2.TaskResult(revision=loaded.card.revision)
    if kind == "embed":
        _embed(loaded, task.embed, limits, cancelled, result)
    elif kind == "classify":
        _classify(loaded, task.classify, limits, cancelled, result)
    elif kind == "generate":
        generation.answer(loaded, task.generate, limits, cancelled, result, show)
    else:
        _infer(loaded, task.infer, limits, result)
    return result


def _vectors(
    loaded: LoadedModel,
    texts: Sequence[str],
    limits: TextLimits,
    field: str,
    cancelled: Cancelled,
    result: inference_pb2.TaskResult,
) -> Floats:
    _raise_if(policy.check_texts(texts, limits, field))
    rows: list[Encoded] = loaded.encoder.encode(texts)
    _raise_if(policy.check_lengths([len(ids) for ids, _ in rows], limits, field))
    result.usage.input_tokens += sum(len(ids) for ids, _ in rows)
    try:
        outputs = loaded.encoder.run(rows, cancelled)
    except BadInput as error:
        raise invalid(field, str(error)) from None
    if not policy.finite(outputs):
        raise internal(
            f"{loaded.card.name} gave NaN or infinite values for {field}; its weights or its "
            "FP16 range are at fault"
        )
    return outputs


def _embed(
    loaded: LoadedModel,
    task: inference_pb2.EmbedTask,
    limits: TextLimits,
    cancelled: Cancelled,
    result: inference_pb2.TaskResult,
) -> None:
    for vector in _vectors(loaded, task.texts, limits, "task.embed.texts", cancelled, result):
        result.embed.embeddings.add().values.extend(vector.tolist())


def _classify(
    loaded: LoadedModel,
    task: inference_pb2.ClassifyTask,
    limits: TextLimits,
    cancelled: Cancelled,
    result: inference_pb2.TaskResult,
) -> None:
    labels = [example.label for example in task.examples]
    _raise_if(policy.check_examples(labels, loaded.card.labels))
    outputs = _vectors(loaded, task.texts, limits, "task.classify.texts", cancelled, result)
    if labels:
        texts = [example.text for example in task.examples]
        examples = _vectors(loaded, texts, limits, "task.classify.examples", cancelled, result)
        names, probabilities = policy.classify_by_examples(outputs, examples, labels)
    else:
        names, probabilities = list(loaded.card.labels), policy.softmax(outputs)
    for row in probabilities.tolist():
        chosen = result.classify.classifications.add()
        for label, score in policy.best(row, names, task.top_k):
            chosen.labels.add(label=label, score=score)


def _infer(
    loaded: LoadedModel,
    task: inference_pb2.InferTask,
    limits: TextLimits,
    result: inference_pb2.TaskResult,
) -> None:
    if sum(len(tensor.data) for tensor in task.inputs) > limits.max_tensor_bytes:
        raise invalid("task.infer.inputs", f"take more than {limits.max_tensor_bytes} bytes")
    session = loaded.encoder.session
    specs = {spec.name: spec for spec in session.inputs}
    arrays = {}
    for index, tensor in enumerate(task.inputs):
        field = f"task.infer.inputs[{index}]"
        if tensor.name not in specs:
            raise invalid(
                f"{field}.name",
                f"{tensor.name!r} is not an input; the model has {', '.join(specs)}",
            )
        arrays[tensor.name] = tensors.fit(
            tensors.decode(tensor.datatype, tensor.shape, tensor.data, field),
            specs[tensor.name],
            field,
        )
    missing = [name for name in specs if name not in arrays]
    if missing:
        raise invalid("task.infer.inputs", f"lack {', '.join(missing)}")
    kinds = {spec.name: spec.type for spec in session.outputs}
    for index, name in enumerate(task.outputs):
        if name not in kinds:
            raise invalid(
                f"task.infer.outputs[{index}]",
                f"{name!r} is not an output; the model has {', '.join(kinds)}",
            )
    wanted = list(task.outputs) or list(kinds)
    try:
        answers = session.run(arrays, wanted)
    except BadInput as error:
        raise invalid("task.infer.inputs", str(error)) from None
    if sum(array.nbytes for array in answers) > limits.max_tensor_bytes:
        raise invalid(
            "task.infer.outputs",
            f"would take more than {limits.max_tensor_bytes} bytes; send fewer rows",
        )
    for name, array in zip(wanted, answers, strict=True):
        datatype, data = tensors.encode(array, kinds[name])
        result.infer.outputs.add(name=name, datatype=datatype, shape=array.shape, data=data)


def _raise_if(problem: FieldViolation | None) -> None:
    if problem is not None:
        raise invalid(problem.field, problem.message)
