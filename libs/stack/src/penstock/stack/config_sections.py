"""Which class reads each section of the configuration file, for those who need them all: the check
and the JSON schema. Services are imported when it is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from penstock.service.settings import SECTIONS
from pydantic import BaseModel

CLASSES: Mapping[str, str] = {
    "keys": "penstock.router.settings:KeysSection",
    "prices": "penstock.prices.prices:PricesSection",
    "limits": "penstock.limiter.rules:LimitsSection",
    "routes": "penstock.router.settings:RoutesSection",
    "cache": "penstock.cache.settings:CacheSection",
    "batching": "penstock.batcher.settings:BatchingSection",
    "prompts": "penstock.router.prompts.rules:PromptsSection",
    "instances": "penstock.stack.instance_groups:InstancesSection",
    "upstreams": "penstock.inference_upstream.settings:UpstreamsSection",
    "scaling": "penstock.scaler.pool_settings:ScalingSection",
}


def section_classes() -> dict[str, type[BaseModel]]:
    """The class of each section, in the order of `SECTIONS`."""
    return {name: _load(CLASSES[name]) for name in SECTIONS}


def _load(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(module), name)
    return found
