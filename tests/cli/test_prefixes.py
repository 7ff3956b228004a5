"""Prompts' prefixes as people read them, in 80 columns: one, those of a run, and in a receipt."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from penstock.api.common.v1 import common_pb2, prefix_pb2
from penstock.api.router.v1 import prefixes_pb2 as pb
from penstock.cli.prefixes import cause, shown_prompt, shown_prompts
from penstock.cli.receipt import receipt_line
from rich.console import Console, RenderableType

FIRST, SECOND = "a" * 32, "b" * 32
CLOCK = prefix_pb2.PrefixBreak(
    kind=prefix_pb2.PREFIX_BREAK_KIND_CLOCK, place="turns[0]", role="system", line=2
)
BROKEN = pb.PromptPrefix(
    request_id=SECOND,
    model="large",
    instance_id="up",
    outcome=prefix_pb2.PREFIX_OUTCOME_BROKEN,
    prefix_break=CLOCK,
    breaks_in_row=2,
    since_request_id=FIRST,
    previous_request_id=FIRST,
    input_tokens=2_100,
    lost_tokens=2_048,
    lost_microusd=5_529,
    text="The prompt broke it, with brackets [bold] in it, and goes on for more than a line does.",
)
READ = pb.PromptPrefix(
    request_id=FIRST, outcome=prefix_pb2.PREFIX_OUTCOME_READ, cached_tokens=1_920
)


def lines(shown: RenderableType) -> Iterator[str]:
    """What a terminal of 80 columns shows."""
    console = Console(width=80, highlight=False, file=io.StringIO())
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    for line in console.file.getvalue().splitlines():
        assert len(line) <= 80
        yield line.strip()


def test_one_prompt_is_shown_in_words() -> None:
    shown = " ".join(lines(shown_prompt(BROKEN)))
    for said in (
        f"{SECOND} · large at up",
        "2,100 tokens, 0 of them read from the provider's cache",
        BROKEN.text,
        f"request {FIRST}.",
    ):
        assert said in shown


def test_the_prompts_of_a_run_are_a_table() -> None:
    _, broken, *_, read, _ = lines(shown_prompts([BROKEN, READ]))
    assert "2,048  $0.005529  clock at turns[0] line" in broken
    assert read.split()[-4:] == ["1,920", "0", "–", "read"]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (prefix_pb2.PREFIX_OUTCOME_BROKEN, "clock at turns[0] line 2"),
        (prefix_pb2.PREFIX_OUTCOME_EVICTED, "evicted"),
        (prefix_pb2.PREFIX_OUTCOME_TOO_SHORT, "too short"),
    ],
)
def test_a_cause_is_a_few_words(outcome: prefix_pb2.PrefixOutcome, said: str) -> None:
    assert cause(outcome, CLOCK) == said


def test_a_receipt_has_a_line_only_where_something_was_lost() -> None:
    receipt = common_pb2.Receipt(model="large")
    assert "prefix" not in receipt_line(receipt).plain
    receipt.prefix_loss.outcome = prefix_pb2.PREFIX_OUTCOME_EVICTED
    receipt.prefix_loss.lost_tokens, receipt.prefix_loss.lost_microusd = 1_280, 3_456
    [line] = [one for one in lines(receipt_line(receipt)) if one.startswith("prefix")]
    assert line == "prefix lost: evicted, 1,280 tokens, $0.003456"
