"""Which errors of a store mean that it is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

STORE_ERRORS = (TimeoutError, RedisError, OSError)
CANNOT_WRITE = (
    OutOfMemoryError,
    ReadOnlyError,
    ClusterDownError,
    AskError,
    TryAgainError,
)
"""Errors of a store that answers but cannot serve now: no memory, a replica (also one that has lost
its primary), a cluster that is down or keeps the keys elsewhere (ASK, MOVED). redis-py makes these
classes of the first word of an error and takes it out of the text.
"""
CODES = (
    "OOM ",
    "MISCONF ",
    "READONLY ",
    "NOREPLICAS ",
    "MASTERDOWN ",
    "CLUSTERDOWN ",
    "MOVED ",
    "ASK ",
    "TRYAGAIN ",
    "BUSY ",
)
"""First words of such errors where they keep them: those without a class, and errors inside a
script.
"""


class StoreLost(Exception):
    """The store does not answer: an operation has not run, or nobody knows whether it has."""


def script_failure(error: Exception) -> Exception:
    """What to raise for an error among the replies of a batch: the error itself if the store is
    lost, a RuntimeError if the script failed, which is a defect of ours.
    """
    if isinstance(error, ResponseError) and not _cannot_write(error):
        return RuntimeError(str(error))
    return error


@contextlib.contextmanager
def store_errors_as_lost() -> Iterator[None]:
    """Raise StoreLost for an error of the store in the block."""
    try:
        yield
    except STORE_ERRORS as error:
        raise StoreLost(type(error).__name__) from None


def _cannot_write(error: ResponseError) -> bool:
    return isinstance(error, CANNOT_WRITE) or any(code in f"{error} " for code in CODES)
