"""How many files and connections a process may have open."""

from __future__ import annotations

import sys


def allow_open_files() -> int:
    """Raise this process's own limit of open files to what the system allows it; the limit.

    The usual limit of 1,024 is one of `select`, which nothing here uses; at a port it would be
    reached by as many idle connections.
    """
    if sys.platform == "win32":
        return 0
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard
