"""The prices of a configuration file, and of the models that run on this machine."""

from __future__ import annotations

from pathlib import Path

from penstock.prices.price_file import read_prices
from penstock.prices.prices import Prices
from penstock.service.local_models import ADDED_FILE


def test_a_model_that_runs_here_costs_nothing_unless_the_file_says_otherwise(
    tmp_path: Path,
) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(
        "prices: {models: [{name: dear, input_microusd_per_mtok: 5000000}]}\n"
        "instances: [{models: [dear, own]}]\n"
    )
    (tmp_path / ADDED_FILE).write_text("instances: [{models: [added]}]\n")
    prices = Prices.from_section(read_prices(file, tmp_path))
    assert prices.cost_bound_microusd("dear", 10, 0) == 50
    assert prices.cost_bound_microusd("own", 10, 10) == 0
    assert prices.cost_bound_microusd("added", 10, 10) == 0
    assert prices.cost_bound_microusd("hosted", 10, 10) is None


def test_without_a_file_nothing_has_a_price(tmp_path: Path) -> None:
    assert read_prices(None, tmp_path).models == ()
