"""Minified JSON keeps every value; ambiguous text keeps its bytes."""

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
def test_a_minified_text_is_shorter_and_has_the_same_value(
    value: dict[str, object], indent: int, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    shorter = minify(text)
    if shorter is not None:
        assert json.loads(shorter) == value
        assert len(shorter) < len(text)
        assert minify(shorter) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{ "a": 1.0, "b": 1, "c": 1e0 }', '{"a":1.0,"b":1,"c":1e0}'),
        ("[ 12345678901234567890123, -0 ]", "[12345678901234567890123,-0]"),
        ('{"a": "two  spaces \\" and \\u00e9"}', '{"a":"two  spaces \\" and \\u00e9"}'),
    ],
)
def test_strings_and_numbers_keep_their_bytes(text: str, expected: str) -> None:
    assert minify(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1} trailing',
        '{"a":1}',
        "not json",
        '"a  string"',
        "[1, 2",
        "[" * 100_000 + " ",
    ],
)
def test_ambiguous_invalid_and_minimal_texts_are_left_alone(text: str) -> None:
    assert minify(text) is None


def test_equal_schemas_become_equal_bytes() -> None:
    schema = (
        '{"type": "object", "properties": {"b": {"type": "number", "minimum": 1.50}, '
        '"a": {"type": "string"}}}'
    )
    properties = '{"a":{"type":"string"},"b":{"minimum":1.50,"type":"number"}}'
    in_order = f'{{"properties":{properties},"type":"object"}}'
    assert sort_keys(schema) == sort_keys(in_order) == in_order
    assert sort_keys("{broken") is None
