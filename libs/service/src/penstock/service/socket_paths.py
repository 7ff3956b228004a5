"""Where unix sockets lie, and how long their paths may be."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 107
"""Of a path on Linux: `sun_path` has a byte more, for the zero at its end (unix(7))."""
MAX_PARENT_BYTES = 60
"""Of the folder that holds it: its name and a socket's still fit behind."""


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A private folder for unix sockets with a path short enough for them; gone afterwards."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    fits = len(os.fsencode(runtime)) < MAX_PARENT_BYTES and os.access(runtime, os.W_OK)
    parent = runtime if fits else None
    with tempfile.TemporaryDirectory(
        prefix="penstock-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
