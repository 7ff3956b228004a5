"""Which limit a descriptor of Envoy's protocol gets, and which descriptors share a counter."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from penstock.limiter.envoy_rules import Entry, EnvoyLimit, counter_name
from penstock.limiter.rules import LimitsSection
from pydantic import ValidationError

TREE = """
- domain: edge
  descriptors:
    - key: path
      rate_limit: {unit: minute, requests_per_unit: 100}
      descriptors:
        - key: user
          value: ann
          rate_limit: {unit: SECOND, requests_per_unit: 3, name: ann}
        - key: user
          rate_limit: {unit: second, requests_per_unit: 1}
    - key: path
      value: /health
      rate_limit: {unlimited: true}
    - key: path
      value: /v1/*
      rate_limit: {unit: hour, requests_per_unit: 50}
      share_threshold: true
      descriptors:
        - key: user
          value: b*
          rate_limit: {unit: year, requests_per_unit: 9}
    - key: quiet
      shadow_mode: true
      rate_limit: {unit: day, requests_per_unit: 7}
"""


def limit_of(rules: object, *pairs: tuple[str, str], domain: str = "edge") -> EnvoyLimit | None:
    section = LimitsSection.model_validate({"envoy": rules})
    entries = [Entry(*pair) for pair in pairs]
    limits = (rule.limit_for(domain, entries) for rule in section.envoy)
    return next((limit for limit in limits if limit is not None), None)


def in_tree(*pairs: tuple[str, str], domain: str = "edge") -> EnvoyLimit | None:
    return limit_of(yaml.safe_load(TREE), *pairs, domain=domain)


def counters_of(*values: str) -> set[str]:
    """Counters of paths with these values."""
    limits = [in_tree(("path", value)) for value in values]
    return {counter_name(limit.entries) for limit in limits if limit is not None}


@pytest.mark.parametrize(
    ("pairs", "requests", "period_s"),
    [
        ([("path", "/a")], 100, 60),
        ([("path", "/v1/chat")], 50, 3_600),
        ([("path", "/a"), ("user", "ann")], 3, 1),
        ([("path", "/a"), ("user", "bob")], 1, 1),
        ([("path", "/v1/x"), ("user", "bob")], 9, 365 * 86_400),
    ],
)
def test_the_exact_value_comes_before_a_wildcard_and_that_before_the_key(
    pairs: list[tuple[str, str]], requests: int, period_s: int
) -> None:
    limit = in_tree(*pairs)
    assert limit is not None
    assert (limit.requests, limit.period_s) == (requests, period_s)


@pytest.mark.parametrize(
    "pairs",
    [
        [("path", "/v1/x"), ("user", "ann")],
        [("path", "/a"), ("user", "ann"), ("more", "x")],
        [("user", "ann")],
        [("other", "x")],
    ],
)
def test_a_tree_is_descended_and_never_climbed(pairs: list[tuple[str, str]]) -> None:
    assert in_tree(*pairs) is None


def test_other_domains_have_other_trees() -> None:
    assert in_tree(("path", "/a"), domain="inner") is None


def test_a_descriptor_may_be_unlimited_or_in_shadow() -> None:
    unlimited, quiet = in_tree(("path", "/health")), in_tree(("quiet", "x"))
    assert unlimited is not None and unlimited.is_unlimited
    assert quiet is not None and quiet.is_shadow


def test_values_of_a_shared_wildcard_have_one_counter_and_others_one_each() -> None:
    assert len(counters_of("/v1/chat", "/v1/embeddings", "/v1/")) == 1
    assert len(counters_of("/a", "/b")) == 2


def test_a_flat_rule_takes_wildcards_and_shares_them() -> None:
    rule: dict[str, Any] = {
        "domain": "edge",
        "descriptor": ["path=/v1/*", "user"],
        "requests_per_unit": 5,
        "unit": "minute",
    }
    ann, bob = ("user", "ann"), ("user", "bob")
    apart = [limit_of([rule], ("path", f"/v1/{page}"), ann) for page in "ab"]
    assert all(apart) and apart[0] != apart[1]
    shared = {**rule, "share_threshold": True}
    first, second = (
        limit_of([shared], ("path", f"/v1/{page}"), who) for page, who in (("a", ann), ("b", bob))
    )
    assert first is not None and first == second
    assert limit_of([rule], ("path", "/v2/a"), ann) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "a", "value": "b", "share_threshold": True}, "ends in"),
        ({"key": "a", "rate_limit": {"requests_per_unit": 1}}, "needs either a unit"),
        ({"key": "a", "rate_limit": {"unlimited": True, "unit": "day"}}, "needs either a unit"),
        ({"key": "a", "rate_limit": {"unit": "eon", "requests_per_unit": 1}}, "unit"),
        ({"key": "", "rate_limit": None}, "key"),
    ],
)
def test_a_tree_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    rules = [{"domain": "edge", "descriptors": [change]}]
    with pytest.raises(ValidationError, match=words):
        LimitsSection.model_validate({"envoy": rules})
    twice = [{"key": "a"}, {"key": "a"}]
    with pytest.raises(ValidationError, match="stands twice"):
        LimitsSection.model_validate({"envoy": [{"domain": "edge", "descriptors": twice}]})


@pytest.mark.standard_case(36)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", "x|1:b=y")], [("a", "x"), ("b", "y")]),
        ([("a", "x|1:b=1:y")], [("a", "x"), ("b", "y")]),
        ([("a=b", "c")], [("a", "b=c")]),
        ([("a", "")], [("", "a")]),
    ],
)
def test_descriptors_that_look_alike_have_counters_of_their_own(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert counter_name([Entry(*pair) for pair in one]) != counter_name(
        [Entry(*pair) for pair in other]
    )


ENTRIES = st.lists(
    st.tuples(st.text("a1:|=", max_size=4), st.text("a1:|=", max_size=4)), max_size=3
)


@pytest.mark.standard_case(36)
@given(ENTRIES, ENTRIES)
def test_only_equal_descriptors_share_a_name(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    names = [counter_name([Entry(*pair) for pair in pairs]) for pairs in (one, other)]
    assert (names[0] == names[1]) == (one == other)
