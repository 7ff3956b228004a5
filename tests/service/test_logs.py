"""Log lines: to read in development, JSON objects in production, each with its call's trace."""

from __future__ import annotations

import json
import logging

from penstock.service.logs import TRACE, CallFilter, formatter

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def record() -> logging.LogRecord:
    return logging.LogRecord("penstock.x", logging.WARNING, "f", 1, "%d left", (3,), None)


def test_a_production_line_is_one_json_object_with_service_and_trace() -> None:
    token = TRACE.set(TRACEPARENT)
    try:
        line = record()
        CallFilter("router").filter(line)
        fields = json.loads(formatter("production").format(line))
    finally:
        TRACE.reset(token)
    assert fields.pop("time").startswith("20")
    assert fields == {
        "level": "WARNING",
        "service": "router",
        "trace_id": "a" * 32,
        "logger": "penstock.x",
        "event": "3 left",
    }


def test_a_development_line_has_date_and_time() -> None:
    line = formatter("development").format(record())
    assert line.endswith("WARNING penstock.x: 3 left")
    assert len(line.split()[0]) == len("2026-01-01")
