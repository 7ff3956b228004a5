"""Runs the suites one after another against one gateway, and logs how they went."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock.bench.conformance.gateway import models_named_in, running_gateway
from penstock.bench.conformance.junit import read_report
from penstock.bench.conformance.log import SuiteRun
from penstock.bench.conformance.suites import ROOT, SUITES, Suite, command, environment
from penstock.bench.harness.checkout import commit_of

SUITE_S = 900.0
"""A suite that takes longer is ended."""


@dataclass(frozen=True)
class Campaign:
    """When it began, ISO 8601, and the commit that was checked out then."""

    began: str
    commit: str


async def run_campaign(home: Path, only: Collection[str] = ()) -> AsyncIterator[SuiteRun]:
    """How each suite went; suites without a checkout are left out.

    Args:
        home: the folder with the built models.
        only: names of suites; all where it is empty.
    """
    campaign = Campaign(datetime.now(UTC).isoformat(timespec="seconds"), commit_of(ROOT))
    suites = [suite for suite in SUITES if not only or suite.name in only]
    async with running_gateway(home, *_models_of(os.environ)) as gateway:
        for suite in suites:
            folder = suite.folder(os.environ)
            if folder is not None:
                yield await _run(suite, folder, gateway, campaign)


def _models_of(environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The models that each wire's checkout asks for; a name that both use is OpenAI's."""
    named: dict[str, list[str]] = {}
    for suite in SUITES:
        folder = suite.folder(environ) if suite.variable else None
        if folder is not None:
            named[suite.variable] = models_named_in([folder / tests for tests in suite.tests])
    openai = named.get("PENSTOCK_OPENAI_PYTHON", [])
    anthropic = named.get("PENSTOCK_ANTHROPIC_SDK", [])
    return openai, [name for name in anthropic if name not in openai]


async def _run(
    suite: Suite, folder: Path, gateway: Mapping[str, str], campaign: Campaign
) -> SuiteRun:
    with tempfile.TemporaryDirectory() as reports:
        report = Path(reports) / "report.xml"
        child = await asyncio.create_subprocess_exec(
            *command(suite, report), cwd=folder, env=environment(suite, folder, gateway)
        )
        try:
            await asyncio.wait_for(child.wait(), SUITE_S)
        except TimeoutError:
            child.kill()
            await child.wait()
        cases = read_report(report)
    return SuiteRun(
        suite.name,
        campaign.began,
        campaign.commit,
        cases.run,
        len(cases.failures),
        cases.failures,
        cases.left_out,
        from_checkout=bool(suite.variable),
    )
