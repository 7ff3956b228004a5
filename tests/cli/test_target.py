"""Where the command finds Penstock: flag, environment, profile, default, in this order."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from penstock.cli.target import DEVELOPMENT_KEY, find_target, profile_file, read_profile


def test_a_flag_goes_before_the_environment_and_that_before_the_profile() -> None:
    environment = {"PENSTOCK_ADDRESS": "environment:1", "PENSTOCK_KEY": "environment-key"}
    profile = {"address": "profile:1", "key": "profile-key", "telemetry": "profile:2"}
    target = find_target({"address": "flag:1"}, environment, profile)
    assert target.address == "flag:1"
    assert target.key == "environment-key"
    assert target.telemetry == "profile:2"
    assert target.cache == "127.0.0.1:7071"


@pytest.mark.parametrize(
    ("address", "key"), [("127.0.0.1:7070", DEVELOPMENT_KEY), ("penstock.example:443", "")]
)
def test_the_development_key_is_sent_to_this_machine_only(address: str, key: str) -> None:
    assert find_target({"address": address}, {}, {}).key == key


def test_the_token_comes_from_the_environment_else_from_the_stacks_file(tmp_path: Path) -> None:
    environment = {"PENSTOCK_HOME": str(tmp_path)}
    assert find_target({}, environment, {}).token == ""
    (tmp_path / "internal-token").write_text("from-file\n")
    assert find_target({}, environment, {}).token == "from-file"
    given = {**environment, "PENSTOCK_INTERNAL_TOKEN": "from-environment"}
    target = find_target({}, given, {})
    assert (target.token, target.admin_token) == ("from-environment", "from-environment")


def test_profiles_stand_in_the_users_configuration_folder() -> None:
    assert profile_file({"XDG_CONFIG_HOME": "/c"}) == Path("/c/penstock/profiles.toml")


def test_a_profile_is_read_by_name_and_the_default_one_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "profiles.toml"
    assert read_profile("", path) == {}
    path.write_text('[staging]\naddress = "staging:7070"\nkey = "psk-1"\n')
    assert read_profile("staging", path) == {"address": "staging:7070", "key": "psk-1"}
    assert read_profile("", path) == {}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("[a]", "b", "no profile 'b'; known are a"),
        ('[a]\nadress = "x"', "a", r"a\.adress: .* known are address"),
        ("[a]\nkey = 5", "a", r"a\.key: is no text"),
        ('key = "x"', "", "key: stands outside of a profile"),
        ("[a", "a", "is not TOML"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, content: str, name: str, message: str
) -> None:
    path = tmp_path / "profiles.toml"
    path.write_text(content)
    with pytest.raises(click.UsageError, match=message):
        read_profile(name, path)
