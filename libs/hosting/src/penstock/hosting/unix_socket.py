"""A unix socket's path before it is bound: taken by nobody, or left behind by a process that ended.

gRPC binds a path whatever stands there. A second copy of a service would then take the path without
a word: new callers reach it, and the first copy serves nobody.
"""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

from penstock.service.program import CannotStart
from penstock.service.socket_paths import MAX_SOCKET_PATH_BYTES

PROBE_S = 1.0


def free_path(path: Path) -> None:
    """Make a path ready to be bound: remove the socket of a process that has ended.

    Raises:
        CannotStart: the path is too long, somebody serves on it, or it is not a socket.
    """
    size = len(str(path).encode())
    if size > MAX_SOCKET_PATH_BYTES:
        raise CannotStart(
            f"cannot listen on unix:{path}: the path has {size} bytes and at most "
            f"{MAX_SOCKET_PATH_BYTES} fit; set PENSTOCK_LISTEN"
        )
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing there; a folder that is missing is found out when it is bound
    if not stat.S_ISSOCK(mode):
        raise CannotStart(
            f"cannot listen on unix:{path}: a file that is not a socket stands there; remove it or "
            "set PENSTOCK_LISTEN"
        )
    if _is_served(path):
        raise CannotStart(
            f"cannot listen on unix:{path}: another process serves there; stop it or set "
            "PENSTOCK_LISTEN"
        )
    path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    """Whether a process takes connections on the path; one that does not answer counts too."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # its queue is full, or the path is another user's
    return True
