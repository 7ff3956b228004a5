"""The shape stage: what a generate task becomes, what it says of it, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import ModelPrice, Prices
from penstock.prompts.selection import Embedder
from penstock.router.prompts.direct_calls import DirectCalls
from penstock.router.prompts.passages import LocalEmbedder, load_model
from penstock.router.prompts.prefixes import Prefixes
from penstock.router.prompts.rules import PromptsSection, ShapingRule
from penstock.router.prompts.shaping import PromptShape
from penstock.router.requests.resolved import ResolvedRequest
from penstock.router.stages import Shaped
from penstock.rpc.call import Call, Principal
from penstock.service.current import Current
from penstock.service.settings import BadConfig, load_section
from penstock.tasks.kinds import kind_of
from penstock.testkit.clock import FakeClock
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

PRICES = Prices({"chat": ModelPrice(name="chat", input_microusd_per_mtok=3_000_000)})
ANN = Call(Principal("acme"))


def chat(system: str = "You help. ") -> inference_pb2.Task:
    task = inference_pb2.Task()
    task.generate.temperature = 0.2
    task.generate.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    task.generate.messages.add(role=inference_pb2.ROLE_USER, content="what is in stock")
    asked = task.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT)
    asked.tool_calls.add(id="c1", name="find", arguments_json='{"b": 1,  "a": 2}')
    rows = [
        {"name": f"item {number}", "count": number, "note": "  kept  as it is "}
        for number in range(30)
    ]
    task.generate.messages.add(
        role=inference_pb2.ROLE_TOOL, content=json.dumps(rows, indent=4), tool_call_id="c1"
    )
    task.generate.tools.add(name="zoom", parameters_json='{"b": 1, "a": 2}', read_only=True)
    task.generate.tools.add(name="find", description="finds")
    return task


def request(task: inference_pb2.Task) -> ResolvedRequest:
    kind = kind_of(task)
    options = router_pb2.CallOptions(model="auto")
    return ResolvedRequest(options, kind, task, "chat", kind.estimate(task))


def stage_of(
    section: PromptsSection,
    prices: Prices = PRICES,
    embedder: Callable[[Path], LocalEmbedder] = LocalEmbedder,
) -> PromptShape:
    current = Current(prices)
    clock = FakeClock()
    direct = DirectCalls(current, clock)
    return PromptShape(section, current, Prefixes(current, clock), direct, embedder)


async def shape(stage: PromptShape, task: inference_pb2.Task, *models: str) -> Shaped:
    return await stage.shape(ANN, request(task), models or ("chat",))


def shaped(
    task: inference_pb2.Task, *rules: ShapingRule
) -> tuple[inference_pb2.Task, tuple[str, ...], int]:
    section = PromptsSection(rules=rules) if rules else PromptsSection()
    done = asyncio.run(shape(stage_of(section), task))
    return done.task, done.notes, sum(saving.microusd for saving in done.savings)


def test_a_tool_result_is_minified_value_by_value_and_all_else_stays() -> None:
    before = chat()
    after, notes, saved = shaped(before)
    assert json.loads(after.generate.messages[3].content) == json.loads(
        before.generate.messages[3].content
    )
    assert len(after.generate.messages[3].content) < 0.7 * len(before.generate.messages[3].content)
    assert saved > 0
    assert notes[0].startswith("prompt: ")
    assert after.generate.messages[:3] == before.generate.messages[:3]
    assert after.generate.temperature == before.generate.temperature
    assert [tool.name for tool in after.generate.tools] == ["zoom", "find"]
    assert after.generate.tools[0].read_only
    again, _, _ = shaped(after)
    assert again == after


def test_a_clock_in_the_instructions_moves_behind_everything_else_and_pairs_stay_paired() -> None:
    before = chat("You help.\nCurrent time: 2026-11-24T10:00:00Z\nBe brief.")
    after, _, _ = shaped(before, ShapingRule(later_system_turn=True))
    messages = after.generate.messages
    assert messages[0].content == "You help.\nBe brief."
    assert "2026-11-24T10:00:00Z" in messages[-1].content
    assert messages[2].tool_calls[0].arguments_json == '{"b": 1,  "a": 2}'
    assert (messages[3].role, messages[3].tool_call_id) == (inference_pb2.ROLE_TOOL, "c1")


@pytest.mark.wire_case(10)
@pytest.mark.wire_case(11)
def test_what_a_provider_must_see_again_and_what_has_a_meaning_goes_round_untouched() -> None:
    before = chat("You help.\nCurrent time: 2026-11-24T10:00:00Z\nBe brief.")
    schema = '{"type":"object","properties":{"reasoning":{},"answer":{}}}'
    before.generate.tools[0].parameters_json = schema
    asked = before.generate.messages[2]
    asked.reasoning.add(text="let me see", state=b"\x00signed", format="anthropic.thinking")
    asked.tool_calls[0].extra_json = '{"extra_content": {"google": {"thought_signature": "s"}}}'
    asked.extra_json = '{"b": 1, "a": 2}'
    pieces = before.generate.messages.add(role=inference_pb2.ROLE_USER)
    pieces.parts.add(text="  what is  this?  ")
    pieces.parts.add(image=inference_pb2.Image(url="https://a/b.png"), cache_breakpoint=True)
    after, _, _ = shaped(before)
    assert len(after.generate.messages) == len(before.generate.messages)
    for sent, made in zip(before.generate.messages, after.generate.messages, strict=True):
        if sent.role != inference_pb2.ROLE_TOOL:
            assert made == sent
    assert after.generate.tools[0].parameters_json == schema
    by_rule, _, _ = shaped(before, ShapingRule(later_system_turn=True))
    assert list(by_rule.generate.messages[2:5]) == list(before.generate.messages[2:5])


def test_other_tenants_are_left_alone() -> None:
    task = chat()
    section = PromptsSection(rules=(ShapingRule(organisation="other"),))
    left = asyncio.run(shape(stage_of(section), task))
    assert (left.task, left.notes, left.savings) == (task, (), ())
    assert left.task is task


def test_a_rule_that_changes_nothing_leaves_the_task_as_it_is() -> None:
    task = chat()
    off = PromptsSection(rules=(ShapingRule(stable_prefix=False, lossless=False),))
    done = asyncio.run(shape(stage_of(off), task))
    assert done.task is task
    assert done.notes == ()


def test_a_named_tokenizer_counts_and_one_that_cannot_be_read_stops_the_start(
    tmp_path: Path,
) -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    task = chat()
    after, notes, _ = shaped(
        task, ShapingRule(tokenizer_file=tmp_path / "tokenizer.json", stable_prefix=False)
    )
    sizes = [
        sum(len(words.encode(turn.content).ids) for turn in made.generate.messages)
        for made in (task, after)
    ]
    tools = sum(
        len(words.encode(text).ids)
        for tool in task.generate.tools
        for text in (tool.name, tool.description, tool.parameters_json)
    )
    assert (
        notes[0]
        == f"prompt: json; {sizes[0] + tools} to {sizes[1] + tools} tokens, counted by its "
        "tokenizer"
    )
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadConfig, match=r"broken\.json cannot be used"):
        ShapingRule(tokenizer_file=tmp_path / "broken.json").optimiser()


def test_values_that_an_earlier_result_holds_are_said_by_name_unless_the_rule_forbids_it() -> None:
    task = chat()
    rows = json.loads(task.generate.messages[3].content)
    second = task.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT)
    second.tool_calls.add(id="c2", name="find", arguments_json="{}")
    task.generate.messages.add(
        role=inference_pb2.ROLE_TOOL,
        content=json.dumps({"page": 2, "last": rows[3:], "all": rows}),
        tool_call_id="c2",
    )
    after, _, _ = shaped(task)
    assert (
        json.loads(after.generate.messages[5].content)["all"]
        == "[same as $ in the result of tool call c1]"
    )
    kept, _, _ = shaped(task, ShapingRule(named_values=False))
    assert json.loads(kept.generate.messages[5].content) == json.loads(
        task.generate.messages[5].content
    )


async def test_an_optimiser_that_fails_leaves_the_prompt_as_it_was_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class BrokenPrices(Prices):
        def input_microusd(self, *_: object) -> int:
            raise RuntimeError("no prices")

    task = chat()
    done = await shape(stage_of(PromptsSection(), BrokenPrices({})), task)
    assert done.task is task
    assert (done.notes, done.savings) == (
        ("prompt optimiser failed; the prompt is as it was sent",),
        (),
    )
    assert "no prices" in caplog.text


async def test_a_fallback_with_another_rule_gets_the_prompt_as_it_came() -> None:
    careful, eager = (
        ShapingRule(model="big", lossless=False, stable_prefix=False),
        ShapingRule(model="small"),
    )
    stage = stage_of(PromptsSection(rules=(careful, eager)))
    task = chat()
    assert (await shape(stage, task, "big", "small")).task is task
    done = await shape(stage, task, "small", "big", "other")
    assert done.task != task
    assert done.not_for == ("big", "other")
    assert (await shape(stage, task, "auto")).task is task


PASSAGES = "\n\n".join(
    f"Passage {number} speaks of {thing} at length."
    for number, thing in enumerate(("tea", "tax", "zinc"))
)


def asking(question: str) -> inference_pb2.Task:
    task = inference_pb2.Task()
    task.generate.messages.add(role=inference_pb2.ROLE_USER, content=question)
    task.generate.messages.add(role=inference_pb2.ROLE_ASSISTANT).tool_calls.add(
        id="c1", name="find", arguments_json="{}"
    )
    task.generate.messages.add(role=inference_pb2.ROLE_TOOL, content=PASSAGES, tool_call_id="c1")
    return task


def selecting(folder: Path, load: Embedder | Exception) -> tuple[PromptShape, list[LocalEmbedder]]:
    made: list[LocalEmbedder] = []

    def loaded(_: Path) -> Embedder:
        if isinstance(load, Exception):
            raise load
        return load

    def embedder(path: Path) -> LocalEmbedder:
        made.append(LocalEmbedder(path, loaded))
        return made[-1]

    section = PromptsSection(rules=(ShapingRule(keep_share=0.5),), embedder=folder)
    return stage_of(section, embedder=embedder), made


def metals(texts: Sequence[str]) -> list[list[float]]:
    """An embedder that knows that zinc is a metal."""
    return [[1.0, 0.0] if "zinc" in text or "metal" in text else [0.0, 1.0] for text in texts]


async def test_the_local_embedder_selects_what_words_alone_would_not(tmp_path: Path) -> None:
    stage, _ = selecting(tmp_path, metals)
    kept = (await shape(stage, asking("which metal"))).task.generate.messages[2].content
    assert "zinc" in kept and "tea" not in kept
    by_words = stage_of(PromptsSection(rules=(ShapingRule(keep_share=0.5),)))
    assert "tea" in (await shape(by_words, asking("which metal"))).task.generate.messages[2].content


async def test_without_a_usable_embedder_words_select_and_one_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage, _ = selecting(tmp_path, RuntimeError("no such model"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            done = await shape(stage, asking("speaks of zinc"))
            assert "zinc" in done.task.generate.messages[2].content
            assert done.notes[-1] == "prompt: passages by BM25 alone, the embedder cannot be used"
    [message] = [record.message for record in caplog.records]
    assert message.startswith(f"prompts.embedder {tmp_path} cannot be used, ")
    assert message.endswith(": no such model")


def test_the_built_model_embeds_each_text_by_itself(home: Path) -> None:
    embed = load_model(home / "models" / "all-MiniLM-L6-v2" / "1")
    alone, *_ = embed(["where is my parcel"])
    _, beside = embed(["a tax form", "where is my parcel"])
    assert len(alone) == 384
    assert alone == beside


def test_an_embedder_is_not_even_made_where_no_rule_selects(tmp_path: Path) -> None:
    stage, made = selecting(tmp_path, metals)
    stage.prepare(PromptsSection(embedder=tmp_path))()
    assert len(made) == 1


TERMS = "These are the terms of the service, which everybody knows by heart by now. " * 4


def test_a_template_stands_for_a_known_part_and_its_name_is_recorded() -> None:
    task = asking("what now")
    task.generate.messages[0].content = TERMS
    task.generate.messages[2].content = f"Found one.\n{TERMS}\nThat is all."
    task.generate.tools.add(name="find", description=f"finds. {TERMS}")
    section = PromptsSection.model_validate(
        {
            "templates": [{"name": "terms", "part": TERMS, "text": "(The usual terms.)"}],
            "rules": [{"templates": ["terms"]}],
        }
    )
    stage = stage_of(section)
    done = asyncio.run(shape(stage, task))
    assert done.task.generate.messages[0].content == TERMS
    assert done.task.generate.messages[2].content == "Found one.\n(The usual terms.)\nThat is all."
    assert done.task.generate.tools[0].description == "finds. (The usual terms.)"
    assert "template terms" in done.notes[0]
    assert done.decisions[0].startswith("tools[0] template terms: ")
    assert asyncio.run(shape(stage, done.task)).task is done.task
    unasked = section.model_copy(update={"rules": (ShapingRule(),)})
    assert TERMS in asyncio.run(shape(stage_of(unasked), task)).task.generate.messages[2].content


@pytest.mark.parametrize(
    ("templates", "names", "wrong"),
    [
        ([], ["terms"], r"rules\[0\]\.templates: there is no 'terms'"),
        (
            [{"name": "a", "part": "x" * 40, "text": "y" * 40}],
            [],
            "'a': text is not shorter than part",
        ),
        ([{"name": "a", "part": "x" * 40, "text": "y"}] * 2, [], "'a' is defined twice"),
        (
            [
                {"name": "a", "part": "x" * 90, "text": "y" * 40},
                {"name": "b", "part": "y" * 40, "text": "z"},
            ],
            [],
            "'a': text contains the part of template 'b'",
        ),
    ],
)
def test_templates_that_cannot_be_are_refused_by_name(
    tmp_path: Path, templates: list[dict[str, str]], names: list[str], wrong: str
) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(
        json.dumps({"prompts": {"templates": templates, "rules": [{"templates": names}]}})
    )
    with pytest.raises(BadConfig, match=wrong):
        load_section(file, "prompts", PromptsSection)


async def test_rules_that_are_read_again_count_from_then_on_and_bad_ones_leave_the_old_in_force(
    tmp_path: Path,
) -> None:
    stage = stage_of(PromptsSection(rules=()))
    task = chat()
    assert (await shape(stage, task)).task is task
    stage.prepare(PromptsSection())()
    assert (await shape(stage, task)).task is not task
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadConfig):
        stage.prepare(PromptsSection(rules=(ShapingRule(tokenizer_file=tmp_path / "broken.json"),)))
    assert (await shape(stage, task)).task is not task


def test_an_order_of_tools_alone_is_left_to_a_body_that_passes_as_it_came() -> None:
    sent = chat()
    sent.generate.wire_request.body = b"{}"
    task, notes, saved = shaped(sent, ShapingRule(lossless=False))
    assert task.generate.HasField("wire_request")
    assert [tool.name for tool in task.generate.tools] == ["zoom", "find"]
    assert (notes, saved) == ((), 0)


async def test_a_clock_that_is_moved_breaks_no_prefix() -> None:
    current = Current(PRICES)
    clock = FakeClock()
    prefixes = Prefixes(current, clock)
    section = PromptsSection(rules=(ShapingRule(later_system_turn=True),))
    stage = PromptShape(section, current, prefixes, DirectCalls(current, clock))
    for second in range(3):
        task = chat(f"You help.\nCurrent time: 2026-11-24T10:00:0{second}Z\nBe brief.")
        for number in range(second):
            task.generate.messages.add(role=inference_pb2.ROLE_USER, content=f"and {number}")
        done = await shape(stage, task)
        assert f"10:00:0{second}" in done.task.generate.messages[-1].content
        assert done.prompt is not None
        done.prompt.answered(f"r{second}", "a", common_pb2.Usage(input_tokens=2_000))
        account = prefixes.of_request("acme", f"r{second}")
        assert account is not None and account.broken is None
        assert "later_system_turn" in account.repairs.applied


async def test_tools_in_another_order_than_before_are_put_in_order_from_then_on() -> None:
    """As the tools' order breaks the prefix anyway, the body is translated; when it comes as it did
    the first time, it stays as it came.
    """
    stage = stage_of(PromptsSection(rules=(ShapingRule(lossless=False),)))

    async def sent(*names: str) -> tuple[list[str], bool]:
        task = asking("what now")
        for name in names:
            task.generate.tools.add(name=name, parameters_json='{"b": 1, "a": 2}')
        task.generate.wire_request.body = b"{}"
        done = await shape(stage, task)
        assert done.prompt is not None
        done.prompt.answered("r", "a", common_pb2.Usage(input_tokens=2_000))
        order = [tool.name for tool in done.task.generate.tools]
        return order, done.task.generate.HasField("wire_request")

    assert await sent("zoom", "find") == (["zoom", "find"], True)
    assert await sent("zoom", "find") == (["zoom", "find"], True)
    for names in (("view", "find", "zoom"), ("zoom", "view", "find")):
        await sent(*names)
    for names in (("zoom", "find", "view"), ("view", "zoom", "find")):
        assert await sent(*names) == (["find", "view", "zoom"], False)


def test_a_prompt_that_becomes_shorter_is_translated() -> None:
    sent = chat()
    sent.generate.wire_request.body = b"{}"
    task, notes, _ = shaped(sent, ShapingRule())
    assert not task.generate.HasField("wire_request")
    assert [tool.name for tool in task.generate.tools] == ["zoom", "find"]
    assert notes


CACHED = Prices(
    {
        "chat": ModelPrice(
            name="chat", input_microusd_per_mtok=3_000_000, cached_input_microusd_per_mtok=300_000
        )
    }
)


async def test_a_direct_call_is_followed_where_reading_a_prefix_has_a_price_of_its_own() -> None:
    # given a prompt whose tool result is shortened, and a provider that reports no cache
    stage = stage_of(PromptsSection(), CACHED)
    done = await shape(stage, chat())
    # then a direct call has the tokens that are left out as well
    assert done.direct is not None
    sent = common_pb2.Usage(input_tokens=500, output_tokens=7)
    left_out = done.direct.usage(sent).input_tokens - 500
    assert left_out > 100
    assert [row.microusd for row in done.savings] == [left_out * 3]
    # and an estimate stays one
    estimate = common_pb2.Usage(input_tokens=500, estimated=True)
    assert done.direct.usage(estimate) == common_pb2.Usage(
        input_tokens=500 + left_out, estimated=True
    )
    # and the same prompt, answered from memory, costs what the whole one does
    reused = stage.reused(ANN, request(chat()))
    assert reused is not None
    assert reused.usage(sent).input_tokens == 500 + left_out


async def test_a_model_whose_input_has_one_price_is_not_followed() -> None:
    stage = stage_of(PromptsSection())
    assert (await shape(stage, chat())).direct is None
    assert stage.reused(ANN, request(chat())) is None
