"""How services log: lines to read in development, one JSON object a line in production.

A line carries date and time, level, service, and the trace id of the call that it belongs to.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from penstock.service.profiles import Profile
from pythonjsonlogger.json import JsonFormatter

TRACE = ContextVar("penstock_trace", default="")
"""The traceparent of the call that this task works for; empty outside calls."""
SERVICE = ContextVar("penstock_service", default="")
"""The service that this task works for, where a process runs several; else empty."""
TRACE_ID = slice(3, 35)
"""Where the trace id stands in a traceparent (W3C Trace Context)."""

LINE = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"
DATE = "%Y-%m-%d %H:%M:%S"
ONLY_WARNINGS = ("faiss.loader",)
"""Loggers of libraries that say at each start what they try."""


class CallFilter(logging.Filter):
    """Adds the service and the trace id to each record. `service` is that of the process."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its fields."""
        record.service = SERVICE.get() or self._service
        record.trace_id = TRACE.get()[TRACE_ID]
        return True


def formatter(profile: Profile) -> logging.Formatter:
    """The format of a profile."""
    if profile == "development":
        return logging.Formatter(LINE, DATE)
    return JsonFormatter(
        ["levelname", "service", "trace_id", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "message": "event"},
        timestamp="time",
    )


def configure(service: str, profile: Profile, level: str) -> None:
    """Send this process's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(profile))
    handler.addFilter(CallFilter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ONLY_WARNINGS:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def silenced(up_to: int) -> Iterator[None]:
    """Log nothing of this level and below in the whole process while the block runs."""
    before = logging.root.manager.disable
    logging.disable(up_to)
    try:
        yield
    finally:
        logging.disable(before)
