"""The campaign of unmodified clients: its log, its reports, and the scripted provider."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from penstock.bench.conformance.junit import Cases, cases_of, read_report
from penstock.bench.conformance.log import SuiteRun, campaign_figures, latest
from penstock.bench.conformance.provider import scripted_provider
from penstock.bench.conformance.schema_values import object_named_in, value_of
from penstock.bench.conformance.script import Question, refused_with, reply_to
from penstock.bench.harness.json_lines import append
from penstock.testkit.raw_upstream import RawRequest

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="x"/></testcase>
<testcase classname="a" name="broken"><error message="x"/></testcase>
<testcase classname="a" name="listed"><skipped message="left out: no sound"/></testcase>
<testcase classname="a" name="silent"><skipped message="not here"/></testcase>
</testsuite></testsuites>"""
TOOLS: dict[str, Any] = {
    "clock": {"properties": {}},
    "weather": {"properties": {"days": {"type": "integer"}}},
}


def run_of(suite: str, campaign: str, **fields: Any) -> SuiteRun:
    return SuiteRun(
        suite, campaign, "abc", fields.pop("run", 10), fields.pop("failed", 0), **fields
    )


def test_a_skip_without_a_listed_reason_is_a_failure() -> None:
    cases = cases_of(REPORT)
    assert (cases.run, cases.left_out) == (3, {"no sound": 1})
    assert cases.failures == (
        "a::bad",
        "a::broken",
        "a::silent: skipped without a listed reason: not here",
    )


def test_a_suite_without_a_report_has_failed(tmp_path: Path) -> None:
    assert read_report(tmp_path / "none.xml") == Cases(0, ("the suite ended without a report",), {})


def test_only_the_last_run_of_a_suite_counts(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "conformance.jsonl"
    assert latest(log) == []
    assert campaign_figures([]) == {}
    append(log, asdict(run_of("openai", "2026-01-01", failed=1, failures=["x"])))
    append(log, asdict(run_of("openai", "2026-01-02", left_out={"no sound": 2})))
    append(log, asdict(run_of("openai-python", "2026-01-02", run=5, failed=2, from_checkout=True)))
    assert campaign_figures(latest(log)) == {
        "conformance_run": 10,
        "conformance_checkouts_run": 5,
        "conformance_left_out": 2,
        "conformance_failed": 2,
    }


def test_a_line_that_is_no_run_is_refused_with_its_file(tmp_path: Path) -> None:
    log = tmp_path / "conformance.jsonl"
    log.write_text('{"suite": "openai"}\n')
    with pytest.raises(ValueError, match=r"conformance\.jsonl: a line is not a run .SuiteRun"):
        latest(log)


def test_values_are_of_the_schema_and_of_the_prompt() -> None:
    schema = {
        "$defs": {"kind": {"enum": ["a", "b"]}},
        "properties": {
            "days": {"type": "integer"},
            "name": {"type": ["string", "null"]},
            "kind": {"$ref": "#/$defs/kind"},
            "list": {"type": "array", "items": {"type": "boolean"}},
            "either": {"anyOf": [{"const": 7}, {"type": "null"}]},
        },
    }
    assert value_of(schema, "3 days in 'Paris'") == {
        "days": 3,
        "name": "Paris",
        "kind": "a",
        "list": [True],
        "either": 7,
    }
    assert object_named_in("with 'setup' and 'end'") == {"setup": "scripted", "end": "scripted"}


def test_the_script_calls_the_tool_that_is_required_or_named() -> None:
    assert reply_to(Question("hello", tools=TOOLS)).calls == (("clock", {}),)
    assert reply_to(Question("weather, 3", tools=TOOLS)).calls == (("weather", {"days": 3}),)
    assert reply_to(Question("2", tools=TOOLS, required="weather")).calls[0][0] == "weather"
    assert len(reply_to(Question("in parallel", tools=TOOLS)).calls) == 2
    assert reply_to(Question("x", tools=TOOLS, may_call=False)).calls == ()
    assert reply_to(Question("rain", tools=TOOLS, is_result=True)).text == "You said: rain."


def test_the_script_keeps_stops_and_lengths() -> None:
    assert reply_to(Question("one", stops=["said"])).ending == "stop_sequence"
    assert reply_to(Question("one two three", max_words=2)).ending == "length"
    assert refused_with(Question("status 503, please")) == 503
    assert refused_with(Question("status 200, please")) == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_both_wires_say_the_same(path: str) -> None:
    body = {
        "model": "m",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "hello"}],
    }
    answer = scripted_provider().answer(RawRequest(path, {}, body))
    assert answer.status == 200
    assert "You said: hello." in orjson.dumps(orjson.loads(b"".join(answer.pieces))).decode()
