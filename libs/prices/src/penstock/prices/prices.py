"""What models cost: the `prices` section of the file, and the arithmetic from tokens to integer
micro-dollars. Plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.api.common.v1 import common_pb2
from penstock.service.settings import Section
from pydantic import Field, field_validator

TOKENS_PER_MTOK = 1_000_000
"""Prices are quoted for so many tokens."""


class ModelPrice(Section):
    """Prices of one model in micro-dollars a million tokens.

    A tier that is not said costs what its plain tokens cost.
    """

    name: str = Field(min_length=1, max_length=128)
    input_microusd_per_mtok: int = Field(0, ge=0)
    output_microusd_per_mtok: int = Field(0, ge=0)
    cached_input_microusd_per_mtok: int | None = Field(None, ge=0)
    written_input_microusd_per_mtok: int | None = Field(None, ge=0)
    reasoning_microusd_per_mtok: int | None = Field(None, ge=0)
    max_output_tokens: int = Field(4_096, ge=1)
    """Longest answer that the model gives: what a call without `max_tokens` may cause."""

    @property
    def cached_input_price(self) -> int:
        return (
            self.input_microusd_per_mtok
            if self.cached_input_microusd_per_mtok is None
            else self.cached_input_microusd_per_mtok
        )

    @property
    def written_input_price(self) -> int:
        return (
            self.input_microusd_per_mtok
            if self.written_input_microusd_per_mtok is None
            else self.written_input_microusd_per_mtok
        )

    @property
    def reasoning_price(self) -> int:
        return (
            self.output_microusd_per_mtok
            if self.reasoning_microusd_per_mtok is None
            else self.reasoning_microusd_per_mtok
        )


class PricesSection(Section):
    """`prices:` of the file."""

    models: tuple[ModelPrice, ...] = ()

    @field_validator("models")
    @classmethod
    def _once(cls, models: tuple[ModelPrice, ...]) -> tuple[ModelPrice, ...]:
        names = [model.name for model in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"name stands twice: {', '.join(twice)}")
        return models


@dataclass(frozen=True)
class Prices:
    """The prices in force.

    A model that stands nowhere has no price, which is not the same as the price 0.
    """

    models: Mapping[str, ModelPrice]

    @classmethod
    def from_section(cls, section: PricesSection) -> Prices:
        return cls({model.name: model for model in section.models})

    def paid_microusd(self, model: str, usage: common_pb2.Usage) -> int | None:
        """What these tokens cost, each in its own tier, rounded up once; None for a model without a
        price.
        """
        price = self.models.get(model)
        if price is None:
            return None
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.written_input_tokens)
        spoken = max(0, usage.output_tokens - usage.reasoning_tokens)
        total = (
            plain * price.input_microusd_per_mtok
            + usage.cached_input_tokens * price.cached_input_price
            + usage.written_input_tokens * price.written_input_price
            + spoken * price.output_microusd_per_mtok
            + usage.reasoning_tokens * price.reasoning_price
        )
        return round_up_microusd(total)

    def cost_bound_microusd(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """The most that so many tokens can cost, whatever their tiers; None for a model without a
        price.
        """
        price = self.models.get(model)
        if price is None:
            return None
        dearest_in = max(price.input_microusd_per_mtok, price.written_input_price)
        dearest_out = max(price.output_microusd_per_mtok, price.reasoning_price)
        return round_up_microusd(input_tokens * dearest_in + output_tokens * dearest_out)

    def prefix_saving_microusd(self, model: str, usage: common_pb2.Usage) -> int:
        """What the provider's prefix cache saved of the plain input price, less what writing to it
        cost above that price.
        """
        price = self.models.get(model)
        if price is None:
            return 0
        plain = price.input_microusd_per_mtok
        saved = usage.cached_input_tokens * (
            plain - price.cached_input_price
        ) - usage.written_input_tokens * (price.written_input_price - plain)
        return saved // TOKENS_PER_MTOK


def round_up_microusd(total: int) -> int:
    """Micro-dollars from token-prices of a million tokens, rounded up: a price is never
    forgotten.
    """
    return -(-total // TOKENS_PER_MTOK)
