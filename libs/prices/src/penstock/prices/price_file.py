"""The prices as the configuration file gives them."""

from __future__ import annotations

from pathlib import Path

from penstock.prices.prices import ModelPrice, PricesSection
from penstock.service.local_models import local_models
from penstock.service.settings import load_section


def read_prices(config_file: Path | None, home: Path) -> PricesSection:
    """The section `prices`; a model that runs on this machine and is not listed costs nothing, so
    that budgets in money admit it.

    Raises:
        BadConfig: a key of the section is bad, or a file cannot be read.
    """
    section = load_section(config_file, "prices", PricesSection)
    listed = {model.name for model in section.models}
    names = dict.fromkeys(local_models(config_file, home))
    free = tuple(ModelPrice(name=name) for name in names if name not in listed)
    return section.model_copy(update={"models": (*section.models, *free)})
