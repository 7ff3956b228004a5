"""What our edges are held against: a real Prometheus, OpenTelemetry's own exporters, content under
forty families of names, background work beside requests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.bench.standards.background import seen_background
from penstock.bench.standards.content import FAMILIES, leaked_families
from penstock.bench.standards.prometheus import program, scraping
from penstock.bench.standards.scrapes import hostile_pages, page_texts, scrape
from penstock.bench.standards.wires import arrived
from penstock.hosting.http_port import HttpPort
from penstock.telemetry.export.prometheus import metrics_app
from penstock.testkit.eventually import eventually

from .exports import Intake, counter, export_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prometheus() -> Path:
    found = program("prometheus", ROOT)
    if found is None:
        pytest.skip("no Prometheus on this machine: `make standards` gets it")
    return found


@pytest.mark.standard_case(24)
async def test_no_content_is_told_or_passed_on_under_any_name(tmp_path: Path) -> None:
    assert len(FAMILIES) >= 30
    assert await leaked_families(tmp_path) == []


@pytest.mark.standard_case(25)
@pytest.mark.standard_case(26)
@pytest.mark.standard_case(27)
async def test_a_real_prometheus_takes_generated_pages(prometheus: Path) -> None:
    found = await scrape(prometheus, await hostile_pages(25), promtool_pages=5)
    assert (found.pages, found.refused, found.samples_lost, found.unparsed) == (50, {}, 0, 0)


@pytest.mark.standard_case(26)
async def test_a_real_prometheus_joins_target_info_and_stores_exemplars(prometheus: Path) -> None:
    intake = Intake()
    metric = counter("app.calls", 7)
    exemplar = metric.sum.data_points[0].exemplars.add(as_int=1, time_unix_nano=10**18)
    exemplar.trace_id = b"\xab" * 16
    await intake.metrics(metric, **{"k8s.pod.name": "app-1"})
    port = HttpPort("127.0.0.1:0", metrics_app(intake.store))
    await port.start()
    joined = "app_calls_total * on (job, instance) group_left (k8s_pod_name) target_info"
    try:
        async with scraping(prometheus, port.address, ["/metrics"]) as server:
            rows = await eventually(lambda: server.query(joined), 60.0)
            found = await eventually(lambda: server.exemplars("app_calls_total"), 60.0)
    finally:
        await port.stop()
    assert [(row["metric"]["k8s_pod_name"], row["value"][1]) for row in rows] == [("app-1", "7")]
    assert found[0]["exemplars"][0]["labels"]["trace_id"] == "ab" * 16


@pytest.mark.standard_case(26)
async def test_both_formats_have_the_same_samples() -> None:
    text, open_metrics = await page_texts(export_of(counter("app.calls", 7, **{"a-b": "x"})))
    samples = [line for line in text.split("\n") if line and not line.startswith("#")]
    assert all(line in open_metrics for line in samples)


@pytest.mark.standard_case(29)
async def test_opentelemetrys_exporters_lose_nothing_over_any_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where Node's packages are, if they are
    found = await arrived(tmp_path, 200)
    assert {"python grpc", "python http", "python http, gzip"} <= set(found.held)
    assert set(found.held.values()) == {200}


async def test_background_work_is_in_no_answer_about_requests(tmp_path: Path) -> None:
    assert await seen_background(tmp_path) == []
