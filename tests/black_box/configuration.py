"""The configuration file of the system under test: who may call, limits, models, prices, pools.

Names here are what tests use: a tenant with a limit of its own, a price or a route is declared here
and used by one test. This file and those that start processes (`processes.py`, `system.py`) may
change with the code; no other file of the suite may.
"""

from __future__ import annotations

import hashlib
from typing import Any

EMBEDDER = "all-MiniLM-L6-v2"
"""The real model, at 20,000 micro-dollars a million tokens."""
TENANTS = [f"tenant-{number:03}" for number in range(500)]
"""Organisations without a limit that could stop them; each test takes its own."""
PRICED = [f"model-{number:03}" for number in range(200)]
"""For scripted instances: 1 micro-dollar an input token, 2 an output token, at most 50 of these."""
AUTO = ("cheap", "judged", "cascade")
"""Capabilities of the models of tests of automatic choice, which so do not meet."""
PROVIDER_KEY = "key-of-the-provider"


def secret_of(key: str) -> str:
    """The API key whose public name is `key`."""
    return f"psk-{key}"


def _price(name: str, **microusd: int) -> dict[str, Any]:
    return {"name": name, **{f"{kind}_microusd_per_mtok": rate for kind, rate in microusd.items()}}


def _key(name: str, organisation: str = "", **fields: Any) -> dict[str, Any]:
    digest = hashlib.sha256(secret_of(name).encode()).hexdigest()
    who = {"id": name, "organisation": organisation or name, "sha256": digest}
    return {**who, "priority_ceiling": "critical", **fields}


def _budget(name: str, organisation: str, counts: str, limit: int, **fields: Any) -> dict[str, Any]:
    """A limit of a rolling day that does not forecast."""
    base = {"name": name, "organisation": organisation, "kind": "budget", "counts": counts}
    return {**base, "limit": limit, "window": "day", "adaptive": False, **fields}


def _rate(name: str, organisation: str, limit: int, **fields: Any) -> dict[str, Any]:
    """A limit of requests an hour, all of which may come at once."""
    base = {"name": name, "organisation": organisation, "kind": "rate", "counts": "requests"}
    return {**base, "limit": limit, "window": "hour", "burst": limit, **fields}


KEYS = [
    *(_key(name) for name in TENANTS),
    *(_key(name) for name in ("three-calls", "few-tokens", "tiny", "poor", "no-prices")),
    *(_key(name) for name in ("shadowed", "drained", "adjusted", "expecting", "leasing")),
    _key("content"),
    _key("firm-red", "firm", team="red", user="ann"),
    _key("firm-red-too", "firm", team="red", user="bob"),
    _key("firm-blue", "firm", team="blue", user="ann"),
    _key("firm-tagged", "firm", team="red", user="ann", tags=["beta"]),
    _key("guild-ann", "guild", user="ann"),
    _key("guild-cat", "guild", user="cat"),
    _key("guild-dan", "guild", user="dan", tags=["beta"]),
    _key("patient", priority_ceiling="low"),
]
RULES = [
    # What every tenant has used: wide enough for every test, there to be read.
    _budget("all-requests", "*", "requests", 10_000_000),
    _budget("all-tokens", "*", "tokens", 10_000_000_000),
    _budget("all-money", "*", "microusd", 10_000_000_000, models=[EMBEDDER, "chat", *PRICED]),
    _rate("three-an-hour", "three-calls", 3),
    _budget("few-tokens-a-day", "few-tokens", "tokens", 500),
    _budget("ten-tokens-a-day", "tiny", "tokens", 10),
    _budget("hundred-microusd-a-day", "poor", "microusd", 100),
    _budget("money-of-any-model", "no-prices", "microusd", 10_000),
    _budget("nothing-a-day", "shadowed", "requests", 0, shadow=True),
    _budget("adjustable", "adjusted", "tokens", 1_000),
    _budget("lendable", "leasing", "tokens", 1_000),
    _budget("expected-tokens", "expecting", "tokens", 100_000, holds="expected"),
    _rate("one-for-cat", "guild", 1, level="user", match="cat"),
    _budget("beta-tokens", "guild", "tokens", 1_000, level="tag", match="beta"),
]
ENVOY = [
    {
        "domain": "edge",
        "descriptor": ["path", "user=ann"],
        "requests_per_unit": 3,
        "unit": "hour",
        "name": "ann",
    },
    {
        "domain": "edge",
        "descriptor": ["shadowed"],
        "requests_per_unit": 1,
        "unit": "hour",
        "shadow": True,
    },
]


def _route(name: str, quality: float, *capabilities: str) -> dict[str, Any]:
    tasks = ["generate", "classify"]
    return {"name": name, "quality": quality, "tasks": tasks, "capabilities": list(capabilities)}


ROUTES = {
    "models": [
        *(_route(f"{name}-small", 0.6, name) for name in AUTO),
        *(_route(f"{name}-large", 0.9, name, "tools") for name in AUTO),
    ],
    "fallbacks": {"model-000": ["model-001"]},
    "cascade_floor": 0.8,
}
PRICES = [
    _price(EMBEDDER, input=20_000),
    _price("chat", input=3_000_000, output=15_000_000, cached_input=300_000),
    *(
        {**_price(name, input=1_000_000, output=2_000_000), "max_output_tokens": 50}
        for name in PRICED
    ),
    *(_price(f"{name}-small", input=1_000_000, output=1_000_000) for name in AUTO),
    *(_price(f"{name}-large", input=10_000_000, output=10_000_000) for name in AUTO),
]


def _pool(name: str, min_instances: int, **fields: float) -> dict[str, Any]:
    """A pool whose instances do 100 units of work a second each."""
    sizes = {"min_instances": min_instances, "max_instances": 10}
    times = {"interval_s": 1.0, "capacity": 100.0, "target_utilisation": 1.0}
    return {"name": name, **sizes, **times, **fields}


AT_ONCE = {"scale_to_zero_after_s": 0, "scale_down_period_s": 0, "start_cost_s": 0}
POOLS = [
    _pool("steady/pool", 2),
    _pool("busy", 1),
    _pool("idle", 0),
    _pool("silent", 0, stale_after_s=1, **AT_ONCE),
]


def _provider(base_url: str) -> dict[str, Any]:
    """The hosted provider: one upstream with three models."""
    models = [
        {"name": "chat", "upstream_name": "provider-chat"},
        {"name": "chat-unpriced", "upstream_name": "provider-chat"},
        {"name": "vectors", "upstream_name": "provider-vectors", "tasks": ["embed"]},
    ]
    waits = dict.fromkeys(
        ("first_byte_timeout_ms", "silence_timeout_ms", "whole_timeout_ms"), 1_500
    )
    bounds = {**waits, "most_answer_bytes": 500_000, "concurrency": 8}
    return {
        "name": "provider",
        "base_url": base_url,
        "models": models,
        "key_env": "PROVIDER_KEY",
        **bounds,
    }


def configuration(provider_url: str) -> dict[str, Any]:
    """The content of penstock.yaml, with the provider at this base URL."""
    return {
        "keys": {"api": KEYS},
        "limits": {"rules": RULES, "envoy": ENVOY},
        "routes": ROUTES,
        "prices": {"models": PRICES},
        "cache": {"max_error_rate": 0.25, "lookup_microusd": 2},
        "upstreams": {"servers": [_provider(provider_url)]},
        "scaling": {"pools": POOLS},
    }
