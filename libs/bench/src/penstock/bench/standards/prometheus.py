"""A real Prometheus that scrapes pages, and what it says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from penstock.service.free_ports import free_address

FOLDER = Path(".prometheus/usr/bin")
"""Where `make standards` puts Debian's package."""
SCRAPE_INTERVAL_S = 30
POLL_S = 0.5
UP = 'up{job="pages"}'
"""Prometheus' own; a page may have a metric of that name too."""
START_S, SCRAPE_S = 60.0, 400.0


def program(name: str, root: Path = Path()) -> Path | None:
    """The path of `prometheus` or `promtool`; None where it is not installed."""
    local = root / FOLDER / name
    found = shutil.which(name)
    return local if local.exists() else Path(found) if found else None


@dataclass(frozen=True)
class Scrape:
    """What came of one page."""

    path: str
    up: bool
    samples: int


class Prometheus:
    """A running server; `address` is where it answers queries."""

    def __init__(self, address: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"http://{address}", trust_env=False, timeout=30.0
        )

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        response = await self._client.get("/api/v1/query", params={"query": expression})
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return found

    async def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """The exemplars of the series that an expression names."""
        period = {"query": expression, "start": "0", "end": "4102444800"}
        response = await self._client.get("/api/v1/query_exemplars", params=period)
        found: list[dict[str, Any]] = response.json()["data"]
        return found

    async def scrapes(self, pages: int) -> list[Scrape]:
        """What came of every page, once each was scraped and none failed for want of time.

        Raises:
            TimeoutError: some were not scraped in time.
        """
        async with asyncio.timeout(SCRAPE_S):
            while True:
                rows = await self.query(UP)
                errors = await self.why_refused()
                timed_out = any("deadline" in error for error in errors.values())
                down = sum(row["value"][1] != "1" for row in rows)
                if len(rows) == pages and down == len(errors) and not timed_out:
                    break
                await asyncio.sleep(POLL_S)
            samples = {
                row["metric"]["page"]: int(row["value"][1])
                for row in await self.query("scrape_samples_scraped")
            }
        return [
            Scrape(page := row["metric"]["page"], row["value"][1] == "1", samples.get(page, 0))
            for row in rows
        ]

    async def why_refused(self) -> dict[str, str]:
        """The error of each page that was refused."""
        response = await self._client.get("/api/v1/targets", params={"state": "active"})
        return {
            target["labels"]["page"]: target["lastError"]
            for target in response.json()["data"]["activeTargets"]
            if target["lastError"]
        }

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@contextlib.asynccontextmanager
async def scraping(server: Path, address: str, paths: Sequence[str]) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes these paths of one address."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(json.dumps(_configuration(address, paths)))
        listen = free_address()
        process = await asyncio.create_subprocess_exec(
            server,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={listen}",
            "--enable-feature=exemplar-storage",
            "--log.level=error",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        prometheus = Prometheus(listen)
        try:
            await _ready(prometheus)
            yield prometheus
        finally:
            await prometheus.close()
            process.terminate()
            await process.wait()


def _configuration(address: str, paths: Sequence[str]) -> dict[str, Any]:
    """A target a page; JSON is YAML."""
    targets = [
        {"targets": [address], "labels": {"__metrics_path__": path, "page": path}} for path in paths
    ]
    interval = f"{SCRAPE_INTERVAL_S}s"
    job = {"job_name": "pages", "honor_labels": True, "static_configs": targets}
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [job],
    }


async def _ready(prometheus: Prometheus) -> None:
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(httpx.TransportError, ValueError, KeyError):
                await prometheus.query("up")
                return
            await asyncio.sleep(POLL_S)
