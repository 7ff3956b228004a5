"""The configuration door: every error at once, named; a bad new file is refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from penstock.service.settings import (
    BadConfig,
    Section,
    ServiceSettings,
    describe,
    load_section,
    load_settings,
    reload_on_sighup,
)
from pydantic import Field


class LimitsSection(Section):
    per_second: int = Field(10, gt=0)
    burst: int = Field(5, gt=0)


class Shape(Section):
    renamed_keys: ClassVar[Mapping[str, str]] = {"wide": "width"}

    kind: Literal["box"]
    width: int = 1


class OtherShape(Section):
    kind: Literal["ball"] = "ball"


class ShapesSection(Section):
    renamed_keys: ClassVar[Mapping[str, str]] = {"most": "max_count"}

    max_count: int
    shapes: tuple[Annotated[Shape | OtherShape, Field(discriminator="kind")], ...] = ()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LISTEN", "127.0.0.1:7070")
    monkeypatch.setenv("PENSTOCK_GRACE_S", "2.5")
    settings = load_settings(ServiceSettings)
    assert (settings.listen, settings.grace_s) == ("127.0.0.1:7070", 2.5)


def test_every_bad_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PROFILE", "holiday")
    monkeypatch.setenv("PENSTOCK_GRACE_S", "-1")
    with pytest.raises(BadConfig) as caught:
        load_settings(ServiceSettings)
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == [
        "PENSTOCK_GRACE_S",
        "PENSTOCK_PROFILE",
    ]


@pytest.mark.threat("secrets in a log line: settings")
def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_INTERNAL_TOKEN", "do-not-show")
    assert "do-not-show" not in repr(load_settings(ServiceSettings))


def test_help_names_every_variable() -> None:
    rows = {variable: meaning for variable, _, meaning in describe(ServiceSettings)}
    assert rows["PENSTOCK_LISTEN"]
    assert all(rows.values())


def test_every_bad_key_of_a_section_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text("limits:\n  per_second: -3\n  burst: many\n  colour: red\n")
    with pytest.raises(BadConfig) as caught:
        load_section(path, "limits", LimitsSection)
    text = "\n".join(caught.value.problems)
    assert all(f"limits.{key}" in text for key in ("per_second", "burst", "colour"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("limts: {}\n", "unknown section"),
        ("[1, 2]", "must hold sections"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(content)
    with pytest.raises(BadConfig, match=said):
        load_section(path, "limits", LimitsSection)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"absent\.yaml: cannot be read"):
        load_section(tmp_path / "absent.yaml", "limits", LimitsSection)


def test_a_renamed_key_is_refused_with_its_new_name_and_its_line(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "limits:\n  most: 3\n  colour: red\n  shapes:\n    - kind: ball\n    - {kind: box,\n"
        "       wide: 2}\n"
    )
    with pytest.raises(BadConfig) as caught:
        load_section(path, "limits", ShapesSection)
    assert sorted(caught.value.problems) == [
        f"{path}: limits.colour: Extra inputs are not permitted",
        f"{path}: limits.most: has a new name; write max_count instead (line 2)",
        f"{path}: limits.shapes.1.box.wide: has a new name; write width instead (line 7)",
    ]


def test_a_renamed_key_leaves_the_messages_of_other_errors_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text("limits: {most: 3, max_count: '{odd}', shapes: [{kind: cube}]}\n")
    with pytest.raises(BadConfig) as caught:
        load_section(path, "limits", ShapesSection)
    with pytest.raises(BadConfig) as without:
        path.write_text("limits: {max_count: '{odd}', shapes: [{kind: cube}]}\n")
        load_section(path, "limits", ShapesSection)
    renamed = [problem for problem in caught.value.problems if "new name" in problem]
    assert len(renamed) == 1
    assert [p for p in caught.value.problems if p not in renamed] == without.value.problems


def test_no_file_gives_the_defaults() -> None:
    assert load_section(None, "limits", LimitsSection).per_second == 10


async def test_a_bad_new_file_is_refused_and_the_old_values_stay(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text("limits: {per_second: 7}\n")
    held = [load_section(path, "limits", LimitsSection)]
    seen = asyncio.Event()

    def prepare() -> Callable[[], None]:
        seen.set()
        section = load_section(path, "limits", LimitsSection)
        return lambda: held.__setitem__(0, section)

    reload_on_sighup(prepare)
    try:
        for content, expected in (
            ("limits: {per_second: -1}\n", 7),
            ("limits: {per_second: 9}\n", 9),
        ):
            path.write_text(content)
            seen.clear()
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(seen.wait(), 5)
            await asyncio.sleep(0)
            assert held[0].per_second == expected
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
