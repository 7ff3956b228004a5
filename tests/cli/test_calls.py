"""The commands that call the router: the command as a process, against a scripted router here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from penstock.cli.command import run
from penstock.rpc.errors import exhausted
from penstock.testkit.router import KEY, ScriptedRouter, serving_router
from running_command import Ended, Run, run_command


@pytest.fixture
def router() -> ScriptedRouter:
    return ScriptedRouter()


@pytest.fixture
async def penstock(router: ScriptedRouter) -> AsyncIterator[Run]:
    """The command with the flags that lead it to the router."""
    async with serving_router(router) as address:

        async def run_here(*arguments: str) -> Ended:
            return await run_command(*arguments, "--address", address, "--key", KEY)

        yield run_here


async def test_embed_shows_texts_values_and_the_receipt(penstock: Run) -> None:
    ended = await penstock("embed", "four", "[bold]")
    assert ended.status == 0
    assert "4.000" in ended.out and "[bold]" in ended.out
    assert "one · 1.5 ms · 0 tokens · $0.000007" in ended.out


async def test_json_is_the_answer_with_the_contracts_field_names(penstock: Run) -> None:
    answer = json.loads((await penstock("embed", "four", "--json")).out)
    assert answer["embeddings"] == [{"values": [4.0]}]
    assert answer["receipt"]["route"]["instance_id"] == "one"


async def test_texts_come_from_a_file_one_a_line(penstock: Run, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a\n\nbcd\n")
    answer = json.loads((await penstock("embed", "--file", str(file), "--json")).out)
    assert [row["values"] for row in answer["embeddings"]] == [[1], [3]]


async def test_rerank_shows_the_best_document_first(penstock: Run) -> None:
    ended = await penstock("rerank", "query", "short", "the longest one", "longer", "--top", "2")
    lines = [line.strip() for line in ended.out.splitlines()[1:3]]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["the longest one", "longer"]


async def test_models_are_listed_also_without_the_word_list(penstock: Run) -> None:
    short, long = await penstock("models"), await penstock("models", "list")
    assert "scripted" in short.out
    assert short.out == long.out


async def test_chat_answers_one_message(penstock: Run, router: ScriptedRouter) -> None:
    ended = await penstock("chat", "how", "are", "you", "--model", "m")
    assert ended.out.startswith("abc\n")
    (options, _), *_ = router.calls
    assert options.model == "m"


async def test_a_refused_call_ends_with_status_1_and_one_line_that_says_what_to_do(
    penstock: Run, router: ScriptedRouter
) -> None:
    router.faults = [exhausted("the budget is used up")]
    ended = await penstock("embed", "text")
    assert (ended.status, ended.out) == (1, "")
    assert ended.error == "penstock: the budget is used up (`penstock usage` shows what is used)\n"


async def test_a_refused_call_is_a_json_object_where_json_is_asked_for(
    penstock: Run, router: ScriptedRouter
) -> None:
    router.faults = [exhausted("the budget is used up", retry_after_s=2.5)]
    error = json.loads((await penstock("embed", "text", "--json")).error)["error"]
    assert (error["code"], error["retry_after_s"]) == ("RESOURCE_EXHAUSTED", 2.5)


async def test_load_counts_every_call_it_was_asked_for(
    penstock: Run, router: ScriptedRouter
) -> None:
    router.faults = [exhausted("full")]
    flags = ("--rate", "200", "--duration", "0.1", "--arrivals", "constant", "--json")
    result = json.loads((await penstock("load", *flags)).out)
    assert result["answered"] == 19
    assert result["failures"] == {"RESOURCE_EXHAUSTED": 1}
    assert sum(row["count"] for row in result["histogram"]) == 19
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["max"]


async def test_no_router_is_said_with_its_address() -> None:
    ended = await run_command("embed", "text", "--address", "127.0.0.1:1", "--key", "k")
    assert ended.status == 1
    assert ended.error.startswith("penstock: 127.0.0.1:1: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed"], "give at least one text"),
        (["embed", "a", "--file", "b"], "not both"),
        (["embed", "--file", "/nowhere"], "cannot be read"),
        (["embd", "a"], "No such command 'embd'"),
        (["embed", "a", "--adress", "b"], "No such option '--adress'"),
        (["embed", "a", "--address", "nowhere"], "is not host:port"),
        (["classify", "a", "--example", "order"], "write LABEL=TEXT"),
        (["load", "--rate", "0"], "--rate"),
        (["usage", "--team", "x"], "need --organisation"),
        (["models", "add", "/nowhere"], "does not exist"),
        (["models", "remove", "nothing"], "was not added here"),
        (["explain"], "give a REQUEST"),
        (["explain", "--run", "r"], "--run needs --prefix"),
        (["explain", "r", "--prefix", "--run", "r"], "give a REQUEST, or"),
        (["completion", "tcsh"], "tcsh"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(arguments)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert status == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_asks_the_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert f"_PENSTOCK_COMPLETE={shell}_complete" in capsys.readouterr().out
