"""Where a store is, as its URL says.

- `redis://USER:PASSWORD@HOST:PORT/DB`, `unix:///PATH`: one server; `rediss://`: the same over TLS.
- `sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE`: the primary that Sentinel names;
  `sentinels://`: the same over TLS, for sentinels and servers.
- `cluster://USER:PASSWORD@HOST:PORT,HOST:PORT`: a cluster; `clusters://`: the same over TLS.

Values after `?`: `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name PEM files, without which
the system's roots are trusted; `db` is a database; `sentinel_username` and `sentinel_password` are
for the sentinels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from penstock.service.purity import pure

Kind = Literal["server", "sentinel", "cluster"]
KINDS: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("server", False),
    "sentinel": ("sentinel", False),
    "sentinels": ("sentinel", True),
    "cluster": ("cluster", False),
    "clusters": ("cluster", True),
}
"""Kind and TLS by scheme."""
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
OPTIONS = frozenset((*FILES, "db", "sentinel_username", "sentinel_password"))
DEFAULT_PORTS: Mapping[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True)
class StoreAddress:
    """A store's URL in its parts. Secrets are left out of its text."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    path: str = ""
    """Of the socket, for `unix`."""
    service: str = ""
    """The primary's name, for Sentinel."""
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


@pure
def parse(url: str) -> StoreAddress:
    """The parts of a store's URL.

    Raises:
        ValueError: says what is wrong, without the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in KINDS:
        raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in KINDS)}")
    kind, tls = KINDS[parts.scheme]
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    if unknown := sorted(options.keys() - OPTIONS):
        raise ValueError(
            f"has an unknown value {unknown[0]}; known are {', '.join(sorted(OPTIONS))}"
        )
    who, _, places = parts.netloc.rpartition("@")
    name, _, password = who.partition(":")
    names = [part for part in parts.path.split("/") if part]
    is_socket = parts.scheme == "unix"
    service = names.pop(0) if kind == "sentinel" and names else ""
    if kind == "sentinel" and not service:
        raise ValueError("names no service; write sentinel://HOST:PORT,HOST:PORT/SERVICE")
    if not is_socket and not places:
        raise ValueError("names no host")
    db = options.get("db") or ("" if is_socket or not names else names[0])
    if (db and not db.isdecimal()) or (kind == "cluster" and db not in ("", "0")):
        raise ValueError("has a database that is no number, or one of a cluster, which has only 0")
    return StoreAddress(
        kind,
        () if is_socket else tuple(_host(place, kind) for place in places.split(",")),
        unquote(parts.path) if is_socket else "",
        service,
        tls,
        unquote(name) or None,
        unquote(password) or None,
        int(db or 0),
        {name: options[name] for name in FILES if name in options},
        options.get("sentinel_username"),
        options.get("sentinel_password"),
    )


def _host(place: str, kind: Kind) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon:
        host, port = place, str(DEFAULT_PORTS[kind])
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("has a host that is no HOST:PORT")
    return host.strip("[]"), int(port)
