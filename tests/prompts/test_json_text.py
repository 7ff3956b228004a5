"""Minified JSON keeps every value; anything doubtful keeps its bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.prompts.json_text import minify, sort_keys

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES), st.integers(1, 8), st.booleans())
def test_the_value_survives(value: dict[str, object], indent: int, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    shorter = minify(text)
    assert shorter is None or (json.loads(shorter) == value and len(shorter) < len(text))
    assert shorter is None or minify(shorter) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{ "a": 1.0, "b": 1, "c": 1e0 }', '{"a":1.0,"b":1,"c":1e0}'),
        ("[ 12345678901234567890123, -0 ]", "[12345678901234567890123,-0]"),
        ('{"a": "two  spaces \\" and \\u00e9"}', '{"a":"two  spaces \\" and \\u00e9"}'),
        ('{"a": 1, "a": 2}', None),
        ('{"a": NaN}', None),
        ('{"a": 1} trailing', None),
        ('{"a":1}', None),
        ("not json", None),
        ('"a  string"', None),
        ("[1, 2", None),
        ("[" * 100_000 + " ", None),
    ],
)
def test_what_is_doubtful_is_left_alone(text: str, expected: str | None) -> None:
    assert minify(text) == expected


def test_equal_schemas_become_equal_bytes() -> None:
    one = (
        '{"type": "object", "properties": {"b": {"type": "number", "minimum": 1.50}, "a": '
        '{"type": "string"}}}'
    )
    properties = '{"a":{"type":"string"},"b":{"minimum":1.50,"type":"number"}}'
    two = f'{{"properties":{properties},"type":"object"}}'
    assert sort_keys(one) == sort_keys(two) == two
    assert sort_keys("{broken") is None
