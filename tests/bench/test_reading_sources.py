"""What the benchmark `reading` finds in sources: samples with one of each, and beside it what must
not be found.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from penstock.api.inference.v1 import inference_pb2
from penstock.bench.reading.figures import BOUNDS, contracts, of_sources
from penstock.bench.reading.sources.contract_fields import DeadField, dead_fields
from penstock.bench.reading.sources.import_cycles import cycles, import_graph
from penstock.bench.reading.sources.kind_comparisons import kind_comparisons, kinds_of
from penstock.bench.reading.sources.places import exempt
from penstock.bench.reading.sources.purity import purity
from penstock.bench.reading.sources.text_decisions import text_decisions
from penstock.bench.reading.sources.tree import Source, SourceTree, repository

KINDS = ("embed", "classify", "generate")


def source(text: str, path: str = "services/shop/src/penstock/shop/prices.py") -> Source:
    return Source(path, textwrap.dedent(text).lstrip("\n"))


def module(name: str, text: str) -> Source:
    return source(text, f"services/shop/src/{name.replace('.', '/')}.py")


def test_a_source_knows_its_module_its_widest_line_and_its_functions() -> None:
    package = source("", "libs/core/src/penstock/core/__init__.py")
    assert (package.module, package.is_package) == ("penstock.core", True)
    plain = source("@one\n@two(\n    3)\ndef f():\n    return (lambda: 4)\n\nx = 'äöü'\n")
    assert (plain.module, plain.lines, plain.widest) == ("penstock.shop.prices", 7, 22)
    assert plain.spans == {1: 5, 5: 5}


def test_modules_that_import_each_other_when_loaded_are_a_cycle() -> None:
    graph = import_graph(
        [
            module("penstock.shop.a", "from penstock.shop import b"),
            module(
                "penstock.shop.b",
                "try:\n    from penstock.shop.c import thing\nexcept ImportError:\n    pass",
            ),
            module("penstock.shop.c", "from . import a\nimport os"),
            module("penstock.shop.d", "from .c import thing"),
        ]
    )
    assert cycles(graph) == [["penstock.shop.a", "penstock.shop.b", "penstock.shop.c"]]


def test_imports_in_functions_and_for_types_are_a_graph_of_their_own() -> None:
    sources = [
        module(
            "penstock.shop.a",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from penstock.shop import b",
        ),
        module("penstock.shop.b", "def late():\n    import penstock.shop.c"),
        module("penstock.shop.c", "import penstock.shop.a"),
    ]
    assert cycles(import_graph(sources)) == []
    assert cycles(import_graph(sources, deferred=True)) == [
        ["penstock.shop.a", "penstock.shop.b", "penstock.shop.c"]
    ]


@pytest.mark.parametrize(
    "text",
    [
        'kind == "embed"',
        '"embed" != kind',
        'kind in ("embed", other)',
        "kind in REPEATABLE",
        'task.WhichOneof("task") == other',
        'task.HasField("classify")',
        'limits["generate"]',
        'limits.get("generate")',
        "isinstance(task, pb.EmbedTask)",
        "kind is TaskKind.EMBED",
        "pb.TASK_KIND_CLASSIFY == kind",
    ],
)
def test_a_kind_compared_with_a_name_is_found(text: str) -> None:
    constants = source('REPEATABLE = frozenset({"embed"})', "libs/rules/src/penstock/rules/sets.py")
    user = source(
        "from penstock.rules.sets import REPEATABLE\n\ndef f(kind, task, other, limits):\n    "
        f"return {text}"
    )
    (found,) = kind_comparisons([constants, user], KINDS)
    assert (found.line, found.function) == (4, "f")


def test_cases_and_dictionaries_of_kinds_are_found_and_the_table_of_adapters_is_not() -> None:
    text = """
        OPERATIONS = {"embed": "embeddings"}
        ADAPTERS = {"embed": embed, "classify": classify}

        match kind:
            case "generate":
                pass
            case EmbedTask():
                pass
            case other:
                pass
    """
    assert [place.line for place in kind_comparisons([source(text)], KINDS)] == [1, 5, 7]


@pytest.mark.parametrize(
    "text",
    [
        'kind == "chat"',
        'Model(tasks=["embed", "classify"])',
        "task.embed.texts",
        'task.WhichOneof("task") is None',
        'kind = "embed"',
        'state.HasField("model")',
        "embed == generate",
    ],
)
def test_naming_a_kind_is_no_comparison(text: str) -> None:
    assert kind_comparisons([source(text)], KINDS) == []


def test_the_home_of_kinds_may_compare_them() -> None:
    assert (
        kind_comparisons(
            [source('kind == "embed"', "libs/tasks/src/penstock/tasks/embed.py")], KINDS
        )
        == []
    )


def test_the_kinds_are_the_contracts_own() -> None:
    assert {"embed", "classify", "generate"} <= kinds_of(
        inference_pb2.DESCRIPTOR.message_types_by_name["Task"]
    )


@pytest.mark.parametrize(
    "text",
    [
        'if self.branch.startswith("all busy"): pass',
        'if reason == "full": pass',
        'if "held" not in decision.reason: pass',
        "if receipt.rule.startswith(STALE): pass",
        "if rule.partition(':')[0] in HITS: pass",
        'if row["note"] in ("late", "early"): pass',
        "if PATTERN.match(fault.message): pass",
        'if "gone" in str(error): pass',
        'if any(code in f"{error}" for code in CODES): pass',
        "match pick.why:\n    case _: pass",
    ],
)
def test_a_branch_on_a_text_for_people_is_found(text: str) -> None:
    assert len(text_decisions([source(f'STALE = "stale answer"\n{text}')])) == 1


@pytest.mark.parametrize(
    "text",
    [
        'if fault.reason == "NO_PRICE": pass',
        'if fault.reason in ("SHED", ""): pass',
        "if reason == NO_MODEL: pass",
        'if turn.role == "user": pass',
        'if text.startswith("- "): pass',
        'log.info("reason: %s", reason)',
        "if reason: pass",
    ],
)
def test_codes_and_others_texts_are_no_text_for_people(text: str) -> None:
    assert text_decisions([source(f'NO_MODEL = "NO_MODEL"\n{text}')]) == []


def test_a_parser_of_outside_text_is_exempt_by_its_function() -> None:
    body = 'return "BUSY" in str(error)'
    text = f"def parse(error):\n    {body}\n\ndef other(error):\n    {body}\n"
    counted, left_out = exempt(
        text_decisions([source(text)]), {"parse": "the store says so in its text alone"}
    )
    assert [place.function for place in counted] == ["other"]
    assert [place.function for place in left_out] == ["parse"]


@pytest.mark.parametrize(
    ("body", "act"),
    [
        ("return time.monotonic()", "uses time.monotonic"),
        ("return random.random()", "uses random.random"),
        ("return numpy.random.normal()", "uses numpy.random.normal"),
        ("return os.environ['HOME']", "uses os.environ"),
        ("log.info('decided')", "calls inner"),
        ("print(1)", "calls print"),
        ("return clock.time()", "reads the time by clock.time"),
        ("return datetime.now()", "reads the time by datetime.now"),
        ("global total", "changes global total"),
    ],
)
def test_what_is_declared_pure_and_touches_the_world_is_found(body: str, act: str) -> None:
    text = (
        "import os, random, time, numpy\nfrom datetime import datetime\n\n@pure\ndef "
        f"decide(clock):\n    {body}\n"
    )
    if act == "calls inner":
        inner = "def inner():\n    logging.info('decided')\n"
        text = f"import logging\n\n@pure\ndef decide():\n    inner()\n\n{inner}"
        act = "inner: uses logging.info"
    found = purity([source(text)])
    assert len(found.declared) == 1
    assert act in {place.code for place in found.impure}
    assert {place.function for place in found.impure} == {"decide"}


def test_purity_follows_calls_into_other_modules_and_methods() -> None:
    clocks = module("penstock.shop.clocks", "import time\n\ndef now():\n    return time.time()\n")
    user = module(
        "penstock.shop.rules",
        """
        from penstock.shop.clocks import now
        from penstock.shop import clocks

        @purity.pure
        class Rule:
            def decide(self):
                return self._when()

            def _when(self):
                return now() + clocks.now()
        """,
    )
    found = purity([clocks, user])
    assert len(found.declared) == 2
    assert {(place.function, place.line) for place in found.impure} == {
        ("Rule.decide", 7),
        ("Rule._when", 10),
    }


def test_an_async_function_of_a_pure_module_waits() -> None:
    found = purity(
        [
            source(
                "PURE = True\n\nasync def decide(other):\n    return await other\n\n"
                "def fine(now, rng):\n    return rng.random() < now\n"
            )
        ]
    )
    assert len(found.declared) == 2
    assert {place.code for place in found.impure} == {"is async", "waits"}


def test_chance_and_time_that_are_given_are_pure() -> None:
    text = """
        import math
        import random
        import numpy as np

        @pure
        def decide(now_s: float, rng: random.Random) -> float:
            return math.floor(now_s) + rng.random() + np.random.default_rng(1).normal()
    """
    assert purity([source(text)]).impure == []


def contract(
    *messages: tuple[str, Sequence[str]], service: str = "KeeperService"
) -> FileDescriptor:
    """A contract with these messages of texts, and one RPC `Ask` from the first to the second."""
    file = descriptor_pb2.FileDescriptorProto(
        name="shop.proto", package="penstock.api.shop.v1", syntax="proto3"
    )
    for name, fields in messages:
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type="TYPE_STRING", label="LABEL_OPTIONAL")
    types = [f".penstock.api.shop.v1.{name}" for name, _ in messages[:2]]
    file.service.add(name=service).method.add(name="Ask", input_type=types[0], output_type=types[1])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindFileByName("shop.proto")


ASKING = """
    from penstock.api.shop.v1 import shop_pb2 as pb

    async def ask(stub):
        request = pb.AskRequest(asked="x", unread="y")
        answer = await stub.Ask(request)
        return answer.told, answer.unwritten

    async def Ask(self, request, call):
        answer = pb.AskResponse()
        answer.told = request.asked + request.unasked
        answer.untold = "z"
        return answer
"""
MESSAGES = (
    ("AskRequest", ("asked", "unread", "unasked", "forgotten")),
    ("AskResponse", ("told", "unwritten", "untold")),
)


def test_fields_that_nothing_writes_or_nothing_reads_are_dead() -> None:
    assert dead_fields([source(ASKING)], [contract(*MESSAGES)]) == [
        DeadField("shop.v1.AskRequest", "forgotten", "written and read"),
        DeadField("shop.v1.AskRequest", "unasked", "written"),
        DeadField("shop.v1.AskRequest", "unread", "read"),
        DeadField("shop.v1.AskResponse", "untold", "read"),
        DeadField("shop.v1.AskResponse", "unwritten", "written"),
    ]


def test_callers_outside_write_requests_and_read_responses() -> None:
    expected = [
        DeadField("shop.v1.AskRequest", "forgotten", "read"),
        DeadField("shop.v1.AskRequest", "unread", "read"),
        DeadField("shop.v1.AskResponse", "unwritten", "written"),
    ]
    assert dead_fields([source(ASKING)], [contract(*MESSAGES, service="RouterService")]) == expected
    uncalled = source(ASKING.replace("stub.Ask(request)", "stub(request)"))
    assert dead_fields([uncalled], [contract(*MESSAGES)]) == expected


@pytest.mark.parametrize(
    "use",
    [
        "answer.unwritten += 'x'",
        "pb.AskResponse(**{'told': 'x', 'unwritten': 'y'})",
        "fill(unwritten='x')",
        "setattr(answer, 'unwritten', 'x')",
    ],
)
def test_a_field_is_written_in_many_ways(use: str) -> None:
    text = f"{textwrap.dedent(ASKING)}\n\ndef more(answer):\n    {use}\n"
    assert "unwritten" not in {
        field.name for field in dead_fields([source(text)], [contract(*MESSAGES)])
    }


def test_the_repository_has_every_figure_of_its_sources_and_its_contracts() -> None:
    tree = SourceTree(repository())
    figures, tables = of_sources(tree)
    assert {
        name for name in BOUNDS if not name.endswith(("_files", "_function_lines", "_on_path"))
    } <= set(figures)
    assert len(contracts(tree)) >= 8
    assert {table.title for table in tables} >= {
        "Largest folders",
        "kind_comparisons",
        "dead_fields",
    }
