"""Rules of the source that no linter has: decisions are pure, names of files say something, a
README fits on one screen.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.reading.sources.purity import Purity, purity
from penstock.bench.reading.sources.tree import SourceTree

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("libs", "services")
    for path in (ROOT / folder).glob("*/src/penstock/**/*.py")
    if "libs/api/" not in path.as_posix()
)
BANNED = {"utils", "util", "common", "helpers", "helper", "base", "manager", "impl", "misc"}
DECISIONS = {
    "penstock.router.routing.choice": {"choose", "closed_because", "too_long"},
    "penstock.router.routing.spot_avoidance": {"unsafe_for_streams"},
    "penstock.router.calls.retries": {"next_step"},
    "penstock.router.admission.refusals": {"refusal"},
    "penstock.limiter.calendar_windows": {"calendar_window"},
    "penstock.limiter.counters": {"counters_of"},
    "penstock.limiter.hints": {"max_tokens_hint", "cheaper_model_hint"},
    "penstock.batcher.queue.batch_formation": {"form_batch"},
    "penstock.batcher.queue.next_batch": {"batch_delay_s", "next_batch"},
    "penstock.cache.semantic.gate": {"contradiction"},
    "penstock.cache.semantic.threshold": {"ServingThreshold.would_serve", "precision_of"},
    "penstock.scaler.decide.decision": {"decide", "newsvendor_level"},
    "penstock.scaler.spot.placement_rule": {"decide_placement"},
    "penstock.scaler.forecast.forecaster": {"Forecaster.observe"},
}
"""Decisions that must carry the marker `pure`; whatever else carries it is checked as well."""


def _identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def declared() -> Purity:
    return purity(SourceTree(ROOT).python)


def test_what_is_declared_pure_is_pure(declared: Purity) -> None:
    assert declared.impure == []


@pytest.mark.parametrize("module", sorted(DECISIONS))
def test_a_decision_is_declared_pure(module: str, declared: Purity) -> None:
    assert DECISIONS[module] <= {name for home, name in declared.declared if home == module}


def test_the_namespace_has_no_init_file() -> None:
    stray = [_identity(path) for path in ROOT.glob("*/*/src/penstock/__init__.py")]
    assert not stray, "an __init__.py here hides every sibling package"


@pytest.mark.parametrize("path", SOURCES, ids=_identity)
def test_no_file_has_a_name_that_says_nothing(path: Path) -> None:
    assert path.stem not in BANNED


@pytest.mark.parametrize("path", sorted((ROOT / "services").iterdir()), ids=lambda path: path.name)
def test_a_service_explains_itself_on_one_screen(path: Path) -> None:
    readme = path / "README.md"
    assert readme.exists(), f"{path.name} has no README.md"
    assert len(readme.read_text().splitlines()) <= 40
