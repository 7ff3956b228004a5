"""Where a command finds Penstock: addresses and secrets.

Each comes from a flag, else an environment variable, else a profile of the profile file, else a
default that fits `make up` on this machine.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

DEVELOPMENT_KEY = "psk-development"
"""The key of deploy/penstock.yaml; only the default for a router on this machine."""
LOOPBACK = ("127.0.0.1:", "localhost:", "[::1]:", "unix:")
TOKEN_FILE = "internal-token"
DEFAULT_PROFILE = "default"
PROFILE_VARIABLE = "PENSTOCK_CLI_PROFILE"


@dataclass(frozen=True)
class Place:
    """One value that a command needs to find Penstock.

    Attributes:
        variable: the environment variable that holds it.
        default: its value where nothing says another.
        meaning: help text of its flag.
    """

    variable: str
    default: str
    meaning: str


PLACES: Mapping[str, Place] = {
    "address": Place("PENSTOCK_ADDRESS", "127.0.0.1:7070", "the router's address, host:port"),
    "key": Place("PENSTOCK_KEY", "", "API key of the router"),
    "token": Place("PENSTOCK_INTERNAL_TOKEN", "", "internal token, for services behind the router"),
    "telemetry": Place("PENSTOCK_TELEMETRY", "127.0.0.1:4317", "telemetry's address"),
    "limiter": Place("PENSTOCK_LIMITER_ADDRESS", "127.0.0.1:7072", "the limiter's address"),
    "limiter_admin": Place(
        "PENSTOCK_LIMITER_ADMIN", "127.0.0.1:7078", "address of the limiter's operators' service"
    ),
    "admin_token": Place(
        "PENSTOCK_ADMIN_TOKEN", "", "secret of an operator of the limiter; default: the token"
    ),
    "cache": Place("PENSTOCK_CACHE_ADDRESS", "127.0.0.1:7071", "the cache's address"),
    "ca": Place(
        "PENSTOCK_CA",
        "",
        "TLS: PEM file of the authorities to believe, or `system`; without it: plaintext",
    ),
    "cert": Place("PENSTOCK_CERT", "", "TLS: PEM file of a certificate of one's own"),
    "key_file": Place("PENSTOCK_KEY_FILE", "", "TLS: PEM file of the certificate's private key"),
}
"""Flags (with dashes) and keys of a profile, by name."""


@dataclass(frozen=True)
class Target:
    """A Penstock to talk to; see `PLACES`."""

    address: str
    key: str
    token: str
    telemetry: str
    limiter: str
    limiter_admin: str
    admin_token: str
    cache: str
    ca: str = ""
    cert: str = ""
    key_file: str = ""


def find_target(
    flags: Mapping[str, str], environment: Mapping[str, str], profile: Mapping[str, str]
) -> Target:
    """The target by flag, environment variable, profile and default, in this order.

    The key defaults to that of `make up` for a router on this machine, the token to the one that
    `make up` wrote.
    """
    values = {
        name: flags.get(name)
        or environment.get(place.variable)
        or profile.get(name)
        or place.default
        for name, place in PLACES.items()
    }
    if not values["key"] and values["address"].startswith(LOOPBACK):
        values["key"] = DEVELOPMENT_KEY
    values["token"] = values["token"] or _token_of_make_up(environment)
    values["admin_token"] = values["admin_token"] or values["token"]
    return Target(**values)


def read_profile(name: str, path: Path) -> dict[str, str]:
    """The values of a profile; none where the file or the default profile is absent.

    Raises:
        click.UsageError: the file cannot be read, has no such profile, or the profile has a key
            that is none of `PLACES`.
    """
    profiles = _read_profiles(path)
    wanted = name or DEFAULT_PROFILE
    if wanted not in profiles:
        if not name:
            return {}
        known = ", ".join(profiles) or "none"
        raise click.UsageError(f"{path}: there is no profile {name!r}; known are {known}")
    profile = profiles[wanted]
    for key, value in profile.items():
        if key not in PLACES or not isinstance(value, str):
            raise click.UsageError(
                f"{path}: {wanted}.{key}: is no text or no known key; known are {', '.join(PLACES)}"
            )
    return profile


def profile_file(environment: Mapping[str, str] = os.environ) -> Path:
    """`profiles.toml` in the user's configuration folder: a table for each profile."""
    folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "penstock" / "profiles.toml"


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of models and data of `make up`."""
    return Path(environment.get("PENSTOCK_HOME") or ".penstock")


def _read_profiles(path: Path) -> dict[str, dict[str, str]]:
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: is not TOML ({error})") from None
    if wrong := [name for name, profile in profiles.items() if not isinstance(profile, dict)]:
        raise click.UsageError(f"{path}: {wrong[0]}: stands outside of a profile; write [default]")
    return profiles


def _token_of_make_up(environment: Mapping[str, str]) -> str:
    try:
        return (home_folder(environment) / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
