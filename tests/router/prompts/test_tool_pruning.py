"""Tools that a rule leaves out of a prompt: what is sent, and what the receipt says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.router.prompts.conversations import conversation_of
from penstock.router.prompts.direct_calls import DirectCalls
from penstock.router.prompts.passages import LocalEmbedder, load_model
from penstock.router.prompts.prefixes import Prefixes
from penstock.router.prompts.pruning import ToolPruner
from penstock.router.prompts.rules import PromptsSection, ShapingRule, ToolPruningSection
from penstock.router.prompts.shaping import PromptShape
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Shaped
from penstock.rpc.call import Call, Principal
from penstock.service.current import Current
from penstock.service.settings import BadConfig, load_section
from penstock.tasks.kinds import kind_of
from penstock.testkit.clock import FakeClock

TOOLS = {
    "book_flight": "Book a flight for passengers from one airport to another.",
    "cancel_flight": "Cancel a flight that was booked.",
    "get_weather": "The weather forecast of a city for the coming days.",
    "play_music": "Play a song or an album on a speaker of the house.",
    "send_email": "Write an e-mail and send it to an address.",
    "order_pizza": "Order a pizza with toppings from a restaurant nearby.",
    "convert_currency": "Convert an amount of money from one currency to another.",
    "translate": "Translate a text from one language to another language.",
    "lock_door": "Lock or unlock a door of the house.",
    "find_recipe": "Find a cooking recipe by its ingredients.",
}
PRICES = Prices(
    {
        "chat": ModelPrice(
            name="chat",
            input_microusd_per_mtok=3_000_000,
            cached_input_microusd_per_mtok=300_000,
        )
    }
)
WEATHER = "What is the weather forecast for the city of Bergen in the coming days?"
PIZZA = "Please order a pizza with mushrooms as toppings from a restaurant nearby."


def task(*said: str) -> inference_pb2.Task:
    """A conversation with all tools: what user and assistant said in turns."""
    made = inference_pb2.Task()
    for place, text in enumerate(said):
        role = inference_pb2.ROLE_ASSISTANT if place % 2 else inference_pb2.ROLE_USER
        made.generate.messages.add(role=role, content=text)
    for name, description in TOOLS.items():
        schema = '{"type":"object","properties":{"value":{"type":"string"}}}'
        made.generate.tools.add(name=name, description=description, parameters_json=schema)
    return made


def stage_of(
    embedder: Path, load: type[LocalEmbedder] | None = None, **settings: object
) -> PromptShape:
    section = PromptsSection(
        rules=(ShapingRule(prune_tools=ToolPruningSection.model_validate(settings)),),
        embedder=embedder,
    )
    current = Current(PRICES)
    clock = FakeClock()
    direct = DirectCalls(current, clock)
    return PromptShape(section, current, Prefixes(current, clock), direct, load or LocalEmbedder)


def shape(stage: PromptShape, sent: inference_pb2.Task) -> Shaped:
    kind = kind_of(sent)
    options = router_pb2.CallOptions(model="auto")
    request = ResolvedRequest(options, kind, sent, "chat", kind.estimate(sent))
    return asyncio.run(stage.shape(Call(Principal("acme")), request, ["chat"]))


def names(done: Shaped) -> list[str]:
    return [tool.name for tool in done.task.generate.tools]


def savings(done: Shaped) -> dict[str, int]:
    return {saving.technique: saving.microusd for saving in done.savings}


@pytest.fixture(scope="module")
def model(home: Path) -> Path:
    return home / "models" / "all-MiniLM-L6-v2" / "1"


def test_tools_that_the_request_does_not_need_are_left_out_and_named(model: Path) -> None:
    sent = task(WEATHER)
    done = shape(stage_of(model), sent)
    assert "get_weather" in names(done)
    assert len(names(done)) <= len(TOOLS) / 2
    assert done.task.generate.messages == sent.generate.messages
    [note] = [note for note in done.notes if note.startswith("tools: ")]
    for name in set(TOOLS) - set(names(done)):
        assert name in note
    assert savings(done)["tool_pruning"] > 0
    assert any("tool_pruning" in line for line in done.decisions)


def test_the_tools_of_a_conversation_begin_with_those_of_the_prompt_before(model: Path) -> None:
    stage = stage_of(model)
    first = shape(stage, task(WEATHER))
    assert first.prompt is not None
    first.prompt.answered("r1", "a", common_pb2.Usage(input_tokens=2_000))
    same = shape(stage, task(WEATHER, "Sunny.", "Good, thanks."))
    assert names(same) == names(first)
    assert savings(same)["tool_pruning"] < savings(first)["tool_pruning"] / 2, "read, not written"
    later = shape(stage, task(WEATHER, "Sunny.", PIZZA))
    assert names(later)[: len(names(first))] == names(first)
    assert "order_pizza" not in names(first)
    assert sorted(names(later)) == sorted(TOOLS)
    elsewhere = shape(stage_of(model), task(WEATHER, "Sunny.", PIZZA))
    assert names(elsewhere) == names(later), "another router chooses the same"


def test_a_called_tool_that_was_left_out_brings_all_tools_back(model: Path) -> None:
    sent = task(WEATHER, "", "And what else is there, in this city or in some other one?")
    sent.generate.messages[1].tool_calls.add(id="c1", name="lock_door", arguments_json="{}")
    done = shape(stage_of(model), sent)
    assert sorted(names(done)) == sorted(TOOLS)
    assert "tool_pruning" not in savings(done)


def test_a_tool_that_the_call_names_is_sent(model: Path) -> None:
    sent = task(WEATHER)
    sent.generate.tool_choice.mode = inference_pb2.TOOL_CHOICE_MODE_REQUIRED
    sent.generate.tool_choice.functions.append("lock_door")
    kept = names(shape(stage_of(model), sent))
    assert kept[-1] == "lock_door"
    assert "get_weather" in kept


def test_a_dry_run_says_what_would_be_left_out_and_sends_all(model: Path) -> None:
    sent = task(WEATHER)
    done = shape(stage_of(model, dry_run=True), sent)
    assert names(done) == list(TOOLS)
    [note] = [note for note in done.notes if note.startswith("dry run, tools: ")]
    assert "lock_door" in note
    assert "tool_pruning" not in savings(done)


def test_a_request_in_another_script_keeps_all_tools(model: Path) -> None:
    done = shape(stage_of(model), task("베르겐의 날씨는 어때요?"))
    assert names(done) == list(TOOLS)
    assert not done.notes


def test_a_body_that_could_pass_as_it_came_is_translated_only_if_tools_go(model: Path) -> None:
    for text, passes in ((WEATHER, False), ("베르겐의 날씨는 어때요?", True)):
        sent = task(text)
        sent.generate.wire_request.body = b"{}"
        assert shape(stage_of(model), sent).task.generate.HasField("wire_request") is passes


def test_without_a_usable_embedder_the_prompt_passes_untouched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, sent = stage_of(tmp_path), task(WEATHER)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            done = shape(stage, sent)
            assert names(done) == list(TOOLS)
            assert "tools: none left out, the embedder cannot be used" in done.notes
    assert len(caplog.records) == 1


def test_an_embedder_that_fails_later_leaves_prompts_untouched_from_then_on(model: Path) -> None:
    good = load_model(model)
    broken = False

    class Failing(LocalEmbedder):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder, lambda _: self._embed_or_fail)

        @staticmethod
        def _embed_or_fail(texts: list[str]) -> object:
            if broken:
                raise RuntimeError("out of memory")
            return good(texts)

    stage = stage_of(model, Failing)
    assert len(names(shape(stage, task(WEATHER)))) < len(TOOLS)
    broken = True
    assert names(shape(stage, task(PIZZA))) == list(TOOLS)
    assert names(shape(stage, task(WEATHER))) == list(TOOLS)


def test_the_user_turns_that_are_remembered_are_bounded(model: Path) -> None:
    asked: list[str] = []

    class Counting(LocalEmbedder):
        def __call__(self, question: str, passages: Sequence[str]) -> Sequence[float]:
            asked.append(question)
            return super().__call__(question, passages)

    pruner = ToolPruner(Counting(model), questions_kept=2)
    tools = conversation_of(task(WEATHER).generate).tools
    for question in (WEATHER, PIZZA, WEATHER, "a song", PIZZA):
        assert sum(pruner.probabilities(tools, question)) == pytest.approx(1)
    assert asked == [WEATHER, PIZZA, "a song", PIZZA]


@pytest.mark.parametrize(
    ("prompts", "wrong"),
    [
        ("rules: [{prune_tools: {}}]", r"rules\[0\]\.prune_tools: needs prompts\.embedder"),
        ("{embedder: /m, rules: [{prune_tools: {omitted_share: 0}}]}", "omitted_share"),
        ("{embedder: /m, rules: [{prune_tools: {omitted_share: 0.5}}]}", "omitted_share"),
        ("{embedder: /m, rules: [{prune_tools: {keep: 3}}]}", "keep"),
    ],
)
def test_rules_that_cannot_be_are_refused_by_name(tmp_path: Path, prompts: str, wrong: str) -> None:
    file = tmp_path / "penstock.yaml"
    text = prompts if prompts.startswith("{") else "{" + prompts + "}"
    file.write_text(f"prompts: {text}\n")
    with pytest.raises(BadConfig, match=wrong):
        load_section(file, "prompts", PromptsSection)
