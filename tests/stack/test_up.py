"""What `up` and its command refuse, each in a line that says what to do, with exit status 2."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from penstock.service.program import CannotStart
from penstock.stack import ports
from penstock.stack.stack import internal_token


def _stack(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock.stack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_port_in_use_is_named_and_the_others_are_not() -> None:
    addresses = dict(list(ports.free().items())[:3])
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = f"127.0.0.1:{server.getsockname()[1]}"
        assert ports.taken({**addresses, "cache": busy}) == {"cache": busy}
    assert ports.taken({"cache": busy}) == {}


def test_without_a_model_one_is_told_to_make_it(tmp_path: Path) -> None:
    ended = _stack("--home", str(tmp_path), "up")
    assert (ended.returncode, ended.stderr) == (
        2,
        f"penstock.stack: no model in {tmp_path}; run `make model`\n",
    )


def test_a_socket_path_that_is_too_long_is_told_without_a_trace(tmp_path: Path) -> None:
    ended = _stack("--home", str(tmp_path), "redis", "--socket", str(tmp_path / ("x" * 120)))
    assert ended.returncode == 2
    assert ended.stderr.startswith("penstock.stack: socket path longer than 107 bytes")
    assert ended.stderr.count("\n") == 1


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(CannotStart, match="PENSTOCK_HOME"):
        internal_token(tmp_path / "home")
