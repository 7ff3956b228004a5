"""The shape stage: what a generate task becomes, what it says of it, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.core.call import Principal
from penstock.core.config import BadConfig
from penstock.core.prices import ModelPrice, Prices
from penstock.router.shaping import PromptShape, PromptsSection, ShapingRule
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

PRICES = Prices({"chat": ModelPrice(name="chat", input_microusd_per_mtok=3_000_000)})
OPTIONS = router_pb2.CallOptions(model="chat")
ANN = Principal("acme")


def chat(system: str = "You help. ") -> inference_pb2.Task:
    task = inference_pb2.Task()
    task.generate.temperature = 0.2
    task.generate.messages.add(role="system", content=system)
    task.generate.messages.add(role="user", content="what is in stock")
    asked = task.generate.messages.add(role="assistant")
    asked.tool_calls.add(id="c1", name="find", arguments_json='{"b": 1,  "a": 2}')
    rows = [{"name": f"item {number}", "count": number, "note": "  kept  as it is "} for number in range(30)]
    task.generate.messages.add(role="tool", content=json.dumps(rows, indent=4), tool_call_id="c1")
    task.generate.tools.add(name="zoom", parameters_json='{"b": 1, "a": 2}', read_only=True)
    task.generate.tools.add(name="find", description="finds")
    return task


def shaped(task: inference_pb2.Task, *rules: ShapingRule) -> tuple[inference_pb2.Task, tuple[str, ...], int]:
    section = PromptsSection(rules=rules) if rules else PromptsSection()
    done = PromptShape(section, lambda: PRICES).shape(OPTIONS, ANN, task)
    return done.task, done.notes, sum(saving.microusd for saving in done.savings)


def test_a_tool_result_is_minified_value_by_value_and_all_else_stays() -> None:
    before = chat()
    after, notes, saved = shaped(before)
    assert json.loads(after.generate.messages[3].content) == json.loads(before.generate.messages[3].content)
    assert len(after.generate.messages[3].content) < 0.7 * len(before.generate.messages[3].content)
    assert saved > 0
    assert notes[0].startswith("prompt: ")
    assert after.generate.messages[:3] == before.generate.messages[:3]
    assert after.generate.temperature == before.generate.temperature
    assert [tool.name for tool in after.generate.tools] == ["find", "zoom"]
    assert after.generate.tools[1].read_only
    again, _, _ = shaped(after)
    assert again == after


def test_a_clock_in_the_instructions_moves_behind_everything_else_and_pairs_stay_paired() -> None:
    before = chat("You help.\nCurrent time: 2026-11-24T10:00:00Z\nBe brief.")
    after, _, _ = shaped(before)
    messages = after.generate.messages
    assert messages[0].content == "You help.\nBe brief."
    assert "2026-11-24T10:00:00Z" in messages[-1].content
    assert messages[2].tool_calls[0].arguments_json == '{"b": 1,  "a": 2}'
    assert (messages[3].role, messages[3].tool_call_id) == ("tool", "c1")


def test_other_tasks_and_other_tenants_are_left_alone() -> None:
    embed = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["a"]))
    assert shaped(embed) == (embed, (), 0)
    task = chat()
    assert shaped(task, ShapingRule(organisation="other")) == (task, (), 0)
    off = ShapingRule(stable_prefix=False, lossless=False)
    assert shaped(task, off) == (task, (), 0)


def test_a_named_tokenizer_counts_and_one_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    task = chat()
    after, notes, _ = shaped(task, ShapingRule(tokenizer_file=tmp_path / "tokenizer.json", stable_prefix=False))
    sizes = [sum(len(words.encode(turn.content).ids) for turn in made.generate.messages) for made in (task, after)]
    tools = sum(
        len(words.encode(text).ids)
        for tool in task.generate.tools
        for text in (tool.name, tool.description, tool.parameters_json)
    )
    assert notes == (f"prompt: json; {sizes[0] + tools} to {sizes[1] + tools} tokens, counted by its tokenizer",)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadConfig, match=r"broken\.json cannot be used"):
        ShapingRule(tokenizer_file=tmp_path / "broken.json").optimiser()


def test_values_that_an_earlier_result_holds_are_said_by_name_unless_the_rule_forbids_it() -> None:
    task = chat()
    rows = json.loads(task.generate.messages[3].content)
    second = task.generate.messages.add(role="assistant")
    second.tool_calls.add(id="c2", name="find", arguments_json="{}")
    task.generate.messages.add(
        role="tool", content=json.dumps({"page": 2, "last": rows[3:], "all": rows}), tool_call_id="c2"
    )
    after, _, _ = shaped(task)
    assert json.loads(after.generate.messages[5].content)["all"] == "[same as $ in the result of tool call c1]"
    kept, _, _ = shaped(task, ShapingRule(named_values=False))
    assert json.loads(kept.generate.messages[5].content) == json.loads(task.generate.messages[5].content)
