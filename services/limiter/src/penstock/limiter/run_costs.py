"""What a run's calls have cost, in rows: the values that the ledger script takes and gives.

The theory stands at the head of `ledger/run_costs.lua`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from penstock.api.common.v1 import run_pb2
from penstock.limiter.counters import NOTHING, ThreeAmounts
from penstock.service.purity import pure

ESTIMATED = "~"
"""Stands behind the kind of what rests on estimates."""


class CostLabel(NamedTuple):
    """What a row tells apart."""

    kind: int
    """A RunCostKind."""
    model: str
    step: str
    is_estimated: bool = False

    @property
    def text(self) -> str:
        """The label as the script keeps it."""
        mark = ESTIMATED if self.is_estimated else ""
        return f"{self.kind}{mark}\n{json.dumps([self.model, self.step], separators=(',', ':'))}"

    @classmethod
    def parse(cls, text: str) -> CostLabel:
        """The label of a text."""
        kind, _, names = text.partition("\n")
        model, step = json.loads(names)
        return cls(int(kind.removesuffix(ESTIMATED)), model, step, kind.endswith(ESTIMATED))


UNSETTLED = CostLabel(run_pb2.RUN_COST_KIND_UNSETTLED, "", "", is_estimated=True)
"""What a call counts as that nobody settles, where it names neither model nor step."""


class CostPart(NamedTuple):
    """A piece of what a call has spent."""

    label: CostLabel
    amounts: ThreeAmounts
    """Calls, tokens and micro-dollars."""
    rounding_picousd: int = 0
    """By how much the micro-dollars are rounded up, in millionths of one; below 10**6."""


class CostRow(NamedTuple):
    """The parts of one label at one run, added up."""

    run_id: str
    part: CostPart


@pure
def spent_of(parts: Iterable[CostPart]) -> ThreeAmounts:
    """What parts come to together."""
    sums = [sum(each) for each in zip(*(part.amounts for part in parts), strict=True)]
    return (sums[0], sums[1], sums[2]) if sums else NOTHING


@pure
def part_rows(parts: Sequence[CostPart]) -> list[list[Any]]:
    """Parts as the script takes them."""
    return [[part.label.text, *part.amounts, part.rounding_picousd] for part in parts]


@pure
def parse_rows(texts: Sequence[bytes | str]) -> tuple[CostRow, ...]:
    """The rows of a reply: fields and values in turn."""
    decoded = [text if isinstance(text, str) else text.decode() for text in texts]
    return tuple(
        _row(field, value) for field, value in zip(decoded[::2], decoded[1::2], strict=True)
    )


def _row(field: str, value: str) -> CostRow:
    run_id, _, label = field.partition("\n")
    calls, tokens, microusd, rounding = (int(number) for number in json.loads(value))
    return CostRow(run_id, CostPart(CostLabel.parse(label), (calls, tokens, microusd), rounding))
