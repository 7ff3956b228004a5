"""What a client of the protocol expects, whatever the transport: each case is a function that
raises AssertionError, or Refused, where it is disappointed.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penstock.bench.kserve.clients import (
    BAD,
    LATE,
    UNKNOWN,
    Answer,
    Ask,
    Client,
    Refused,
    Tensor,
    texts,
)
from penstock.bench.kserve.targets import MODEL, Target
from penstock.testkit.eventually import eventually

Case = Callable[[Client, Target], Awaitable[None]]
HELLO, LONGER = (101, 7592, 102), (101, 7592, 2088, 2003, 102)
ROWS = ((101, 7592, 2088, 102), (101, 3376, 4248, 102), (101, 1037, 2158, 102))
WIDTH = 384
OUTPUT = "sentence_embedding"


async def lives_and_is_ready(client: Client, _: Target) -> None:
    assert await client.live()
    assert await client.ready()


async def says_which_models_are_ready(client: Client, _: Target) -> None:
    assert await client.model_ready(MODEL)
    assert await client.model_ready(MODEL, "1")
    assert not await client.model_ready(MODEL, "9")
    assert not await client.model_ready("nobody")


async def describes_the_server(client: Client, _: Target) -> None:
    told = await client.server()
    assert told["name"] and told["version"]
    assert {"statistics", "model_configuration"} <= set(told["extensions"])


async def describes_a_model(client: Client, _: Target) -> None:
    for version in ("", "1"):
        told = await client.model(MODEL, version)
        assert (told["name"], told["versions"]) == (MODEL, ["1"])
        assert told["platform"]
        assert ("input_ids", "INT64", [-1, -1]) in told["inputs"]
        assert told["outputs"] == [(OUTPUT, "FP32", [-1, WIDTH])]


async def configures_a_model_as_triton_would(client: Client, _: Target) -> None:
    told = await client.config(MODEL)
    assert (told["name"], told["backend"]) == (MODEL, "onnxruntime")
    assert told["input"][1:] == ("TYPE_INT64", [-1, -1])


async def infers_typed_contents(client: Client, _: Target) -> None:
    answer = await client.infer(texts([HELLO], MODEL, id="one"))
    assert (answer.id, answer.model, answer.version) == ("one", MODEL, "1")
    datatype, shape, values = answer.outputs[OUTPUT]
    assert (datatype, shape, len(values)) == ("FP32", [1, WIDTH], WIDTH)
    assert math.isclose(math.hypot(*values), 1.0, abs_tol=1e-3)


async def infers_raw_contents_alike(client: Client, _: Target) -> None:
    typed = await client.infer(texts([LONGER], MODEL, id="typed"))
    raw = await client.infer(texts([LONGER], MODEL, id="raw", raw=True))
    assert raw.outputs == typed.outputs


async def takes_a_version(client: Client, _: Target) -> None:
    assert (await client.infer(texts([HELLO], MODEL, version="1"))).version == "1"


async def gives_the_outputs_that_are_named(client: Client, _: Target) -> None:
    answer = await client.infer(texts([HELLO], MODEL, outputs=[OUTPUT]))
    assert set(answer.outputs) == {OUTPUT}


async def answers_rows_independently(client: Client, _: Target) -> None:
    together = (await client.infer(texts(ROWS, MODEL, raw=True))).outputs[OUTPUT][2]
    for index, row in enumerate(ROWS):
        alone = (await client.infer(texts([row], MODEL, raw=True))).outputs[OUTPUT][2]
        assert together[index * WIDTH : (index + 1) * WIDTH] == alone, index


async def refuses_unknown_models_and_versions(client: Client, _: Target) -> None:
    await refused(client.infer(texts([HELLO], "nobody")), UNKNOWN, "nobody")
    await refused(client.infer(texts([HELLO], MODEL, version="9")), UNKNOWN, "version 9")
    await refused(client.infer(texts([HELLO], MODEL, version="x")), BAD, "version string")
    await refused(client.model("nobody"), UNKNOWN, "nobody")


async def names_a_missing_input(client: Client, _: Target) -> None:
    ask = texts([HELLO], MODEL)
    del ask.inputs[2]
    await refused(client.infer(ask), BAD, "expected 3 inputs but got 2")


async def names_an_input_that_does_not_fit(client: Client, _: Target) -> None:
    def changed(**fields: Any) -> Ask:
        ask = texts([HELLO], MODEL)
        ask.inputs[0] = Tensor(**{**vars(ask.inputs[0]), **fields})
        return ask

    for ask, words in (
        (changed(datatype="INT32"), "data-type is 'INT32'"),
        (changed(datatype="FP99"), "FP99"),
        (changed(shape=[3]), "shape"),
        (changed(shape=[1, 4]), "needs 32"),
        (changed(name="ids"), "unexpected inference input"),
    ):
        told = await refused(client.infer(ask), BAD, words)
        assert "input_ids" in told or "ids" in told


async def names_an_unknown_output(client: Client, _: Target) -> None:
    ask = texts([HELLO], MODEL, outputs=["nothing"])
    await refused(client.infer(ask), BAD, "nothing")


async def refuses_what_it_does_not_serve(client: Client, _: Target) -> None:
    ask = texts([HELLO], MODEL)
    ask.inputs[0].parameters["shared_memory_region"] = "region"
    await refused(client.infer(ask), BAD, "shared memory")
    state = texts([HELLO], MODEL, parameters={"sequence_id": 7, "sequence_start": True})
    await refused(client.infer(state), BAD, "sequence")


async def refuses_tokens_that_the_model_does_not_have(client: Client, _: Target) -> None:
    await refused(client.infer(texts([(101, 10**6, 102)], MODEL)), BAD, "inputs")


async def keeps_to_the_time_of_a_request(client: Client, _: Target) -> None:
    long = texts([[101, *[2088] * 200, 102]] * 8, MODEL, raw=True, parameters={"timeout": 1})
    await refused(client.infer(long), LATE, "")
    answer = await client.infer(texts([HELLO], MODEL, parameters={"timeout": 20_000_000}))
    assert answer.outputs


async def counts_what_was_asked(client: Client, _: Target) -> None:
    before = await client.statistics(MODEL)
    await client.infer(texts([HELLO], MODEL))
    await refused(client.infer(texts([HELLO], MODEL, outputs=["nothing"])), BAD, "nothing")
    after = await client.statistics(MODEL)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def lists_its_models(client: Client, _: Target) -> None:
    assert (MODEL, "READY") in await client.index()


async def says_whether_models_can_be_loaded(client: Client, target: Target) -> None:
    """An instance loads and unloads; a router says that it does not."""
    if target.is_router:
        assert "model_repository" not in (await client.server())["extensions"]
        for work in (client.load(MODEL), client.unload(MODEL)):
            await refused(work, "", "")
        return
    await client.unload("nobody")
    await client.load(MODEL)
    assert await client.model_ready(MODEL)
    await refused(client.load("nobody"), "", "failed to load 'nobody'")


async def says_what_a_call_cost_and_who_served_it(client: Client, target: Target) -> None:
    if not target.is_router:
        return
    ask = texts([(101, 2054, 2003, 102)], MODEL, parameters={"run_id": "conformance"})
    first = await client.infer(ask)

    async def from_cache() -> Answer:
        """An answer is stored after it has left."""
        answer = await client.infer(ask)
        assert "hit" in answer.parameters["cache"]
        return answer

    second = await eventually(from_cache)
    assert first.parameters["request_id"] != second.parameters["request_id"]
    assert first.outputs == second.outputs
    assert "paid_microusd" in first.parameters
    assert first.parameters["instance_id"] or "hit" in first.parameters["cache"]


async def refused(work: Awaitable[object], kind: str, words: str) -> str:
    """The text of a refusal of that kind; an empty kind stands for any."""
    try:
        await work
    except Refused as error:
        assert kind in ("", error.kind), error
        assert words in error.message, error
        return error.message
    raise AssertionError(f"was not refused ({kind} {words})")


CASES: Sequence[Case] = (
    lives_and_is_ready,
    says_which_models_are_ready,
    describes_the_server,
    describes_a_model,
    configures_a_model_as_triton_would,
    infers_typed_contents,
    infers_raw_contents_alike,
    takes_a_version,
    gives_the_outputs_that_are_named,
    answers_rows_independently,
    refuses_unknown_models_and_versions,
    names_a_missing_input,
    names_an_input_that_does_not_fit,
    names_an_unknown_output,
    refuses_what_it_does_not_serve,
    refuses_tokens_that_the_model_does_not_have,
    keeps_to_the_time_of_a_request,
    counts_what_was_asked,
    lists_its_models,
    says_whether_models_can_be_loaded,
    says_what_a_call_cost_and_who_served_it,
)
