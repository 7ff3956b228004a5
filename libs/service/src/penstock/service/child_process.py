"""A command that ends with the process that started it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
LAUNCHER = (
    "import ctypes, os, signal, sys\n"
    f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, signal.SIGTERM)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def die_with_parent(command: Sequence[str]) -> tuple[str, ...]:
    """The command behind a launcher that asks to be ended with its parent (Linux) and then becomes
    the command.

    Not by `preexec_fn`: that forks this process with its gRPC threads in it, and such a child
    crashes now and then.
    """
    if sys.platform != "linux":
        return tuple(command)
    return (sys.executable, "-I", "-S", "-c", LAUNCHER, *command)
