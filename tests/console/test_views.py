"""Every view of the console in a real browser without network, against a running stack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from penstock.api.router.v1 import router_pb2
from penstock.stack.stack import Stack

from .browser import Page

pytestmark = [pytest.mark.processes, pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

EXPECTED_TEXTS = {
    "/": (
        "Is anything wrong now?",
        "open incidents",
        "router",
        "inference-onnx-quantized",
        "batcher",
    ),
    "/savings": (
        "Is it worth it?",
        "full price",
        "acme",
        "run-1",
        "all-MiniLM-L6-v2",
        "unattributed",
        "by technique",
        "exact",
    ),
    "/cache": (
        "Is the cache safe and useful?",
        "look-ups",
        "audited hits right",
        "Look-ups by rule",
        "exact_hit",
        "context_use",
    ),
    "/scoreboard": (
        "Why did the router choose that?",
        "inference-1",
        "inference-2",
        "least_added_delay",
        "Why picked",
    ),
    "/queues": ("Who is waiting?", "critical", "inference-1", "0 of 1", "penstock.batcher.depth"),
    "/budgets": ("When do we run out?", "acme-hour", "$1.00", "acme", "an hour"),
    "/scaling": (
        "Did scaling act in time?",
        "Demand",
        "work, actual and forecast",
        "penstock.scaler.work",
        "Decisions, newest first",
        "→",
        "instances",
    ),
    "/traces": (
        "What is flowing, and where did the time go?",
        "RouterService/Embed",
        "ShopService/Order",
    ),
    "/graph": (
        "Who calls whom?",
        "client → router",
        "router → batcher",
        "batcher → inference-onnx-quantized",
    ),
    "/incidents": (
        "What changed?",
        "open",
        "shop",
        "failed",
        "error_rate",
        "shop ShopService/Order",
    ),
}
WITH_CHARTS = {
    "/",
    "/savings",
    "/cache",
    "/scoreboard",
    "/queues",
    "/budgets",
    "/scaling",
    "/graph",
    "/incidents",
}


def address(stack: Stack, path: str) -> str:
    return f"http://{stack.addresses['console']}{path}"


@pytest.mark.parametrize("path", EXPECTED_TEXTS)
async def test_a_view_answers_its_question(stack: Stack, page: Page, path: str) -> None:
    await page.open(address(stack, path))
    for text in EXPECTED_TEXTS[path]:
        await page.until(f"document.body.innerText.includes({text!r})")
    if path in WITH_CHARTS:
        await page.until(
            "!!document.querySelector('canvas, svg') && "
            "document.querySelector('canvas').width > 100"
        )
    assert await page.eval("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.errors == [] and page.outside == []


async def test_a_view_refreshes_by_itself(stack: Stack, page: Page) -> None:
    await page.open(address(stack, "/"))
    read = "[...document.querySelectorAll('.tile')].map(t => t.innerText).join()"
    before = await page.eval(read)
    for number in range(20):
        request = router_pb2.EmbedRequest(texts=[f"what the view has not shown yet, {number}"])
        await stack.router.Embed(request, metadata=stack.metadata("acme"), timeout=20)
    await page.until(f"{read} !== {before!r}", timeout_s=15.0)


async def test_a_request_links_to_its_waterfall_with_critical_path_and_cost(
    stack: Stack, page: Page
) -> None:
    await page.open(address(stack, "/traces?name=Embed&run_id=run-1"))
    missed = (
        "[...document.querySelectorAll('tbody tr')].find(row => row.innerText.includes('miss'))"
    )
    await page.until(f"!!{missed}")
    await page.eval(f"{missed}.querySelector('a').click()")
    await page.until("!!document.querySelector('table.waterfall')")
    text = await page.text()
    for part in ("router", "batcher", "inference-onnx-quantized", "critical ms", "paid", "run-1"):
        assert part in text
    tiles = dict(re.findall(r"(took|paid)\n(\S+)", text))
    assert float(tiles["paid"].removeprefix("$")) > 0
    critical = await page.eval(
        "[...document.querySelectorAll('table.waterfall tbody tr')].reduce((s, r) => s + "
        "parseFloat(r.cells[3].innerText), 0)"
    )
    assert critical == pytest.approx(float(tiles["took"]), abs=0.1)
    assert await page.eval("document.querySelectorAll('.lane b').length") > 3


async def test_keys_open_views_and_the_address_holds_the_theme(stack: Stack, page: Page) -> None:
    await page.open(address(stack, "/"))
    await page.until("!!window.socket?.connected")
    await page.press("4")
    await page.until(
        "location.pathname === '/scoreboard' && document.body.innerText.includes('Why picked')"
    )
    await page.open(address(stack, "/scoreboard?theme=dark"))
    await page.until("document.body.classList.contains('body--dark')")
    background = "getComputedStyle(document.body).backgroundColor"
    assert await page.eval(background) == "rgb(18, 18, 18)"
    await page.open(address(stack, "/scoreboard?theme=light"))
    assert await page.until(f"{background} === 'rgb(255, 255, 255)'")


async def test_filters_stand_in_the_address(stack: Stack, page: Page) -> None:
    await page.open(address(stack, "/traces"))
    await page.eval("document.querySelector('input[name=service]').value = 'shop'")
    await page.eval("document.querySelector('form.filters button').click()")
    await page.until(
        "location.search.includes('service=shop') && "
        "document.body.innerText.includes('ShopService')"
    )
    await page.until("!document.body.innerText.includes('RouterService')")


async def test_a_checkbox_stands_in_the_address(stack: Stack, page: Page) -> None:
    await page.open(address(stack, "/traces"))
    await page.eval("document.querySelector('input[name=errors]').click()")
    await page.eval("document.querySelector('form.filters button').click()")
    await page.until(
        "location.search.includes('errors=1') && "
        "document.querySelector('input[name=errors]').checked"
    )
    await page.until("!document.body.innerText.includes('RouterService/Embed')")


async def test_the_consoles_own_calls_leave_no_trace(stack: Stack, page: Page) -> None:
    await page.open(address(stack, "/traces?name=Service/&all=1"))
    await page.until("document.body.innerText.includes('RouterService/Embed')")
    for name in (
        "TelemetryService",
        "ScalerService",
        "GetStats",
        "GetUsage",
        "GetScoreboard",
        "ListQueues",
    ):
        assert name not in await page.text()


async def test_a_screenshot_can_be_saved(page: Page, tmp_path: Path) -> None:
    await page.save_screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"
