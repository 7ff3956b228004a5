"""The span of a call in a service: whose it is, and what is written on it."""

from __future__ import annotations

import asyncio

from penstock.otel.telemetry import Telemetry
from penstock.rpc.call import Call
from penstock.rpc.spans import serve_under, span_of

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def _names_and_attributes(telemetry: Telemetry) -> list[tuple[str, dict[str, object]]]:
    return [(row.name, dict(row.attributes or {})) for row in telemetry.ended_spans]


def test_what_serves_a_call_writes_on_its_servers_span() -> None:
    telemetry = Telemetry("shop")
    telemetry._recorder.is_exporting = True
    with telemetry.span("Buy", Call(traceparent=PARENT), kind="server") as server:
        serve_under(server)
        hurried = server.call._replace(deadline_s=1.0)
        with span_of(telemetry, "inner", hurried, {"asked": "tea"}) as span:
            span.set("given", "milk")
            assert span.recorded
            assert span.call is hurried
    assert _names_and_attributes(telemetry) == [("Buy", {"asked": "tea", "given": "milk"})]


def test_work_that_no_server_serves_has_a_span_of_its_own() -> None:
    telemetry = Telemetry("shop")
    telemetry._recorder.is_exporting = True

    async def background(call: Call) -> None:
        serve_under(None)
        with span_of(telemetry, "refresh", call, {"asked": "later"}):
            pass

    async def main() -> None:
        with telemetry.span("Batch", Call(traceparent=PARENT), kind="server") as server:
            serve_under(server)
            other = Call(traceparent=PARENT.replace("b" * 16, "c" * 16))
            with span_of(telemetry, "member", other, {"asked": "beside"}):
                pass
            await asyncio.create_task(background(server.call))
            with span_of(telemetry, "inner", server.call, {"asked": "still"}):
                pass

    asyncio.run(main())
    assert _names_and_attributes(telemetry) == [
        ("member", {"asked": "beside"}),
        ("refresh", {"asked": "later"}),
        ("Batch", {"asked": "still"}),
    ]
