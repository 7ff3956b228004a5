"""A service that cannot start says why in one line and exits with 2."""

from __future__ import annotations

import pytest
from penstock.service.program import CannotStart, run
from penstock.service.settings import ServiceSettings


async def _serve(settings: ServiceSettings) -> None:
    if settings.listen == "taken":
        raise CannotStart("port 7070 is in use; stop what uses it or set PENSTOCK_LISTEN")


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["router"])


def _exit_status() -> int:
    with pytest.raises(SystemExit) as caught:
        run("router", ServiceSettings, _serve)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_clean_stop_is_zero() -> None:
    assert _exit_status() == 0


def test_a_port_in_use_is_one_line_and_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_LISTEN", "taken")
    assert _exit_status() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bad_settings_are_a_line_each_and_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_PROFILE", "holiday")
    monkeypatch.setenv("PENSTOCK_DRAIN_S", "soon")
    assert _exit_status() == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_help_lists_the_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["router", "--help"])
    assert _exit_status() == 0
    assert "PENSTOCK_LEDGER_URL" in capsys.readouterr().out
