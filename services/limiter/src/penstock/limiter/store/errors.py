"""Which errors of a store mean that it is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

STORE_ERRORS = (TimeoutError, RedisError, OSError)
CANNOT_WRITE = ("OOM ", "MISCONF ", "READONLY ", "NOREPLICAS ", "MASTERDOWN ", "CLUSTERDOWN ")
"""Codes of a store that answers but cannot write: no memory, no disk, a replica."""


class StoreLost(Exception):
    """The store does not answer: an operation has not run, or nobody knows whether it has."""


def is_store_failure(error: Exception) -> bool:
    """Whether an error among the replies of a batch says that the store is lost; otherwise it says
    that the script failed, which is a defect of ours or of what it was given.
    """
    return not isinstance(error, ResponseError) or _cannot_write(error)


@contextlib.contextmanager
def store_errors_as_lost() -> Iterator[None]:
    """Raise StoreLost for an error of the store in the block."""
    try:
        yield
    except STORE_ERRORS as error:
        raise StoreLost(type(error).__name__) from None


def _cannot_write(error: ResponseError) -> bool:
    # redis-py removes the code of some errors and makes a class of it; an error inside a script has
    # the code in its text.
    is_known = isinstance(error, OutOfMemoryError | ReadOnlyError)
    return is_known or any(code in f"{error} " for code in CANNOT_WRITE)
