"""How long the path of a unix socket may be."""

from __future__ import annotations

MAX_SOCKET_PATH_BYTES = 107
"""Of a path on Linux: `sun_path` has a byte more, for the zero at its end (unix(7))."""
