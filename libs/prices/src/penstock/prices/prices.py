"""What models cost: the section `prices` of the configuration file, and the arithmetic from tokens
to money. Amounts are integers. A price of so many micro-dollars a million tokens is so many
pico-dollars (millionths of a micro-dollar) a token, so a cost in pico-dollars is exact; in
micro-dollars it is rounded up once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.api.common.v1 import common_pb2
from penstock.service.default_models import DEFAULT_MODELS
from penstock.service.settings import Section
from pydantic import Field, field_validator

TOKENS_PER_MTOK = 1_000_000
"""Prices are quoted for a million tokens."""
PICOUSD = 1_000_000
"""Pico-dollars in a micro-dollar."""


class ModelPrice(Section):
    """Prices of one model, in micro-dollars a million tokens.

    Tokens of a kind without a price of its own cost what other input or output tokens cost.
    """

    name: str = Field(min_length=1, max_length=128)
    input_microusd_per_mtok: int = Field(0, ge=0)
    output_microusd_per_mtok: int = Field(0, ge=0)
    cached_input_microusd_per_mtok: int | None = Field(None, ge=0)
    """Input that the provider reads from its prefix cache."""
    written_input_microusd_per_mtok: int | None = Field(None, ge=0)
    """Input that the provider writes to its prefix cache."""
    reasoning_microusd_per_mtok: int | None = Field(None, ge=0)
    max_output_tokens: int | None = Field(None, ge=1)
    """The longest answer that the model gives: what a call without `max_tokens` may cause. Where it
    is not declared, limits hold 4,096 tokens, and such a call may say no more.
    """

    @property
    def cached_input_price(self) -> int:
        """Price of input that is read from the prefix cache, in micro-dollars a million tokens."""
        price = self.cached_input_microusd_per_mtok
        return self.input_microusd_per_mtok if price is None else price

    @property
    def written_input_price(self) -> int:
        """Price of input that is written to the prefix cache, in micro-dollars a million tokens."""
        price = self.written_input_microusd_per_mtok
        return self.input_microusd_per_mtok if price is None else price

    @property
    def reasoning_price(self) -> int:
        """Price of reasoning tokens, in micro-dollars a million tokens."""
        price = self.reasoning_microusd_per_mtok
        return self.output_microusd_per_mtok if price is None else price


class PricesSection(Section):
    """The section `prices` of the file."""

    models: tuple[ModelPrice, ...] = ()

    @field_validator("models")
    @classmethod
    def _has_unique_names(cls, models: tuple[ModelPrice, ...]) -> tuple[ModelPrice, ...]:
        names = [model.name for model in models]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"duplicate model name: {', '.join(repeated)}")
        return models


@dataclass(frozen=True)
class Prices:
    """The prices in force, by model.

    A model that is not listed has no price, which is not the same as the price 0. The models that
    come with Penstock run here and cost 0 unless the file says otherwise.
    """

    models: Mapping[str, ModelPrice]

    @classmethod
    def from_section(cls, section: PricesSection) -> Prices:
        """The prices of a section of the file."""
        free = {name: ModelPrice(name=name) for name in DEFAULT_MODELS}
        return cls(free | {model.name: model for model in section.models})

    def paid_microusd(self, model: str, usage: common_pb2.Usage) -> int | None:
        """What the tokens of a call cost, each at the price of its kind, in micro-dollars; None for
        a model without a price.
        """
        picousd = self.paid_picousd(model, usage)
        return None if picousd is None else rounded_up_microusd(picousd)

    def paid_picousd(self, model: str, usage: common_pb2.Usage) -> int | None:
        """The same exactly, in pico-dollars."""
        price = self.models.get(model)
        if price is None:
            return None
        plain = max(0, usage.input_tokens - usage.cached_input_tokens - usage.written_input_tokens)
        visible = max(0, usage.output_tokens - usage.reasoning_tokens)
        return (
            plain * price.input_microusd_per_mtok
            + usage.cached_input_tokens * price.cached_input_price
            + usage.written_input_tokens * price.written_input_price
            + visible * price.output_microusd_per_mtok
            + usage.reasoning_tokens * price.reasoning_price
        )

    def cost_bound_microusd(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """The most that so many tokens can cost, whatever their kind, in micro-dollars; None for a
        model without a price.
        """
        picousd = self.cost_bound_picousd(model, input_tokens, output_tokens)
        return None if picousd is None else rounded_up_microusd(picousd)

    def cost_bound_picousd(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """The same exactly, in pico-dollars."""
        price = self.models.get(model)
        if price is None:
            return None
        dearest_input = max(price.input_microusd_per_mtok, price.written_input_price)
        dearest_output = max(price.output_microusd_per_mtok, price.reasoning_price)
        return input_tokens * dearest_input + output_tokens * dearest_output

    def output_tokens_within(self, model: str, input_tokens: int, microusd: int) -> int:
        """The most output tokens, at least 0, with which a call of a model with a price costs at
        most so much, whatever the kind of its tokens.
        """
        price = self.models[model]
        dearest_input = max(price.input_microusd_per_mtok, price.written_input_price)
        dearest_output = max(price.output_microusd_per_mtok, price.reasoning_price)
        left = microusd * TOKENS_PER_MTOK - input_tokens * dearest_input
        return max(0, left // max(1, dearest_output))

    def has_prefix_prices(self, model: str) -> bool:
        """Whether input costs something else where it is read from the provider's prefix cache or
        written to it.
        """
        price = self.models.get(model)
        if price is None:
            return False
        plain = price.input_microusd_per_mtok
        return price.cached_input_price != plain or price.written_input_price != plain

    def input_microusd(self, model: str, tokens: int) -> int:
        """What so many tokens of input cost at the plain price, in micro-dollars, rounded down; 0
        for a model without a price.
        """
        price = self.models.get(model)
        return 0 if price is None else tokens * price.input_microusd_per_mtok // TOKENS_PER_MTOK

    def prefix_saving_microusd(self, model: str, usage: common_pb2.Usage) -> int:
        """What the provider's prefix cache saved of the plain input price, less what writing to it
        cost above that price, in micro-dollars; 0 for a model without a price.
        """
        price = self.models.get(model)
        if price is None:
            return 0
        plain = price.input_microusd_per_mtok
        saved = usage.cached_input_tokens * (plain - price.cached_input_price)
        added = usage.written_input_tokens * (price.written_input_price - plain)
        return (saved - added) // TOKENS_PER_MTOK

    def read_prefix_microusd(self, model: str, tokens: int) -> int:
        """What so many tokens cost that are read from the provider's prefix cache, in
        micro-dollars; 0 for a model without a price.
        """
        price = self.models.get(model)
        return 0 if price is None else tokens * price.cached_input_price // TOKENS_PER_MTOK

    def lost_prefix_microusd(self, model: str, tokens: int, written_tokens: int = 0) -> int:
        """What it cost that so many tokens were not read from the provider's prefix cache which
        could have been, in micro-dollars; 0 for a model without a price.

        Args:
            model: the model.
            tokens: that were not read.
            written_tokens: of the prompt, written to the cache: lost tokens among them cost what
                writing does, others the plain input price.
        """
        price = self.models.get(model)
        if price is None:
            return 0
        written = min(tokens, written_tokens)
        paid = written * price.written_input_price
        paid += (tokens - written) * price.input_microusd_per_mtok
        return max(0, paid - tokens * price.cached_input_price) // TOKENS_PER_MTOK


def rounded_up_microusd(picousd: int) -> int:
    """Whole micro-dollars of pico-dollars."""
    return -(-picousd // PICOUSD)
