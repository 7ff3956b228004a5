"""The limiter's other doors on real servers: Envoy's protocol and the operators'."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.envoy import ratelimit_pb2_grpc as rls_grpc
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.limiter.v1 import limiter_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.limiter.api.admin_service import AdminServicer, operator
from penstock.limiter.api.envoy_service import EnvoyServicer
from penstock.rpc.call import Call, Principal
from penstock.rpc.endpoint import Endpoint
from penstock.service.settings import ServiceSettings

Limiters = Any
ADMIN = pb.DESCRIPTOR.services_by_name["LimiterAdminService"]
OVER, OK = rls.RateLimitResponse.OVER_LIMIT, rls.RateLimitResponse.OK
MONTH = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
}
EDGE = {
    "domain": "edge",
    "descriptor": ["path", "user=ann"],
    "requests_per_unit": 3,
    "unit": "minute",
    "name": "ann",
}


def asked(*descriptors: dict[str, str], hits: int = 0) -> rls.RateLimitRequest:
    request = rls.RateLimitRequest(domain="edge", hits_addend=hits)
    for descriptor in descriptors:
        row = request.descriptors.add()
        for key, value in descriptor.items():
            row.entries.add(key=key, value=value)
    return request


class Doors:
    """Both doors of one limiter on ports of their own."""

    def __init__(self, limiters: Limiters, **section: Any) -> None:
        self.limiter = limiters.make([MONTH], **section)
        store = limiters.stores[-1]
        envoy = EnvoyServicer(self.limiter, store, answer_s=10.0)
        admin = Endpoint(
            ADMIN, AdminServicer(self.limiter, store, limiters.clock), operator({"secret": "olga"})
        )
        settings = ServiceSettings(listen="127.0.0.1:0", drain_s=0)
        self.servers = [
            GrpcServer(
                "envoy",
                settings,
                [],
                foreign=[lambda to: rls_grpc.add_RateLimitServiceServicer_to_server(envoy, to)],
            ),
            GrpcServer("admin", settings, [admin]),
        ]
        self.channels: list[grpc.aio.Channel] = []

    async def __aenter__(self) -> Doors:
        for server in self.servers:
            await server.start()
            self.channels.append(grpc.aio.insecure_channel(server.address))
        self.envoy = rls_grpc.RateLimitServiceStub(self.channels[0])
        self.admin = limiter_pb2_grpc.LimiterAdminServiceStub(self.channels[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self.channels:
            await channel.close()
        for server in self.servers:
            await server.stop(None)


async def test_envoys_descriptors_are_counted_and_refused(limiters: Limiters) -> None:
    async with Doors(limiters, envoy=[EDGE]) as endpoints:
        for left in (2, 1, 0):
            answer = await endpoints.envoy.ShouldRateLimit(asked({"path": "/a", "user": "ann"}))
            assert (answer.overall_code, answer.statuses[0].limit_remaining) == (OK, left)
        answer = await endpoints.envoy.ShouldRateLimit(asked({"path": "/a", "user": "ann"}))
        assert (answer.overall_code, answer.statuses[0].code) == (OVER, OVER)
        assert answer.statuses[0].current_limit.name == "ann"
        assert answer.statuses[0].duration_until_reset.seconds == 60
        headers = {header.key: header.value for header in answer.response_headers_to_add}
        assert headers == {
            "ratelimit-limit": "3",
            "ratelimit-remaining": "0",
            "ratelimit-reset": "60",
        }
        other = await endpoints.envoy.ShouldRateLimit(
            asked({"path": "/b", "user": "ann"}, {"path": "/a", "user": "bob"})
        )
        assert [status.code for status in other.statuses] == [OK, OK]


async def test_nothing_is_counted_unless_every_descriptor_passes(limiters: Limiters) -> None:
    async with Doors(limiters, envoy=[EDGE]) as endpoints:
        both = asked({"path": "/a", "user": "ann"}, {"path": "/b", "user": "ann"})
        both.descriptors[1].hits_addend.value = 4
        answer = await endpoints.envoy.ShouldRateLimit(both)
        assert [answer.overall_code, *(status.code for status in answer.statuses)] == [
            OVER,
            OK,
            OVER,
        ]
        assert answer.statuses[0].limit_remaining == 3


async def test_a_descriptor_that_stands_twice_is_counted_twice_and_never_beyond_the_limit(
    limiters: Limiters,
) -> None:
    async with Doors(limiters, envoy=[EDGE]) as endpoints:
        twice = asked({"path": "/a", "user": "ann"}, {"path": "/a", "user": "ann"})
        answer = await endpoints.envoy.ShouldRateLimit(twice)
        assert (answer.overall_code, [status.limit_remaining for status in answer.statuses]) == (
            OK,
            [1, 1],
        )
        answer = await endpoints.envoy.ShouldRateLimit(twice)
        assert (answer.overall_code, [status.code for status in answer.statuses]) == (
            OVER,
            [OVER, OVER],
        )


async def test_all_rules_in_shadow_count_and_let_pass(limiters: Limiters) -> None:
    async with Doors(limiters, envoy=[EDGE], shadow=True) as endpoints:
        answer = await endpoints.envoy.ShouldRateLimit(asked({"path": "/a", "user": "ann"}, hits=3))
        answer = await endpoints.envoy.ShouldRateLimit(asked({"path": "/a", "user": "ann"}))
        assert (answer.overall_code, answer.statuses[0].limit_remaining) == (OK, 0)
        request = pb.ReserveRequest(hold_id="a", amount=pb.Amount(microusd=2_000))
        passed = (await endpoints.limiter.Reserve(request, Call(Principal("acme")))).decision
        assert passed.verdict == pb.VERDICT_ALLOWED


async def test_an_override_and_the_shadow_mode(limiters: Limiters) -> None:
    async with Doors(limiters, envoy=[{**EDGE, "shadow": True}]) as endpoints:
        wild = asked({"tenant": "t"}, hits=5)
        wild.descriptors[0].limit.requests_per_unit, wild.descriptors[0].limit.unit = 5, rls.HOUR
        assert (await endpoints.envoy.ShouldRateLimit(wild)).overall_code == OK
        again = await endpoints.envoy.ShouldRateLimit(wild)
        assert (again.overall_code, again.statuses[0].current_limit.unit) == (OVER, rls.HOUR)
        shadowed = asked({"path": "/a", "user": "ann"}, hits=50)
        assert (await endpoints.envoy.ShouldRateLimit(shadowed)).overall_code == OK


@pytest.mark.parametrize(
    ("request_", "said"), [(rls.RateLimitRequest(), "domain"), (asked(), "descriptors")]
)
async def test_bad_requests_of_envoys_name_the_field(
    limiters: Limiters, request_: rls.RateLimitRequest, said: str
) -> None:
    async with Doors(limiters) as endpoints:
        with pytest.raises(grpc.aio.AioRpcError, match=said) as failed:
            await endpoints.envoy.ShouldRateLimit(request_)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_operator_mends_a_budget_and_the_log_knows(limiters: Limiters) -> None:
    async with Doors(limiters) as endpoints:
        who = (("authorization", "Bearer secret"),)
        subject = pb.Subject(rule="month", organisation="acme", value="acme")
        call = Call(Principal("acme"))
        hold = pb.ReserveRequest(hold_id="a", amount=pb.Amount(microusd=900))
        await endpoints.limiter.Reserve(hold, call)
        await endpoints.limiter.Commit(
            pb.CommitRequest(hold_id="a", spent=pb.Amount(microusd=900)), call
        )
        given = await endpoints.admin.AdjustUsage(
            pb.AdjustUsageRequest(subject=subject, amount=-300, reason="goodwill"), metadata=who
        )
        assert given.committed == 600
        await endpoints.admin.SetLimit(
            pb.SetLimitRequest(subject=subject, limit=5_000, reason="bigger plan"), metadata=who
        )
        shown = await endpoints.admin.ShowUsage(
            pb.ShowUsageRequest(path=pb.Path(organisation="acme")), metadata=who
        )
        assert (shown.rules[0].limit.microusd, shown.rules[0].committed.microusd) == (5_000, 600)
        reset = await endpoints.admin.ResetUsage(
            pb.ResetUsageRequest(subject=subject, reason="new deal"), metadata=who
        )
        assert reset.committed == 600
        drained = await endpoints.admin.DrainOrganisation(
            pb.DrainOrganisationRequest(organisation="acme", drain=True, reason="closing"),
            metadata=who,
        )
        assert drained.open_holds == 0
        verified = await endpoints.admin.VerifyLedger(
            pb.VerifyLedgerRequest(organisation="acme"), metadata=who
        )
        assert list(verified.differing) == []
        changes = (await endpoints.admin.ListChanges(pb.ListChangesRequest(), metadata=who)).changes
        assert [change.action for change in changes] == [
            "DrainOrganisation",
            "ResetUsage",
            "SetLimit",
            "AdjustUsage",
        ]
        assert {change.operator for change in changes} == {"olga"}
        assert changes[-1].target == "month of acme/acme -300"


async def test_operators_need_their_credentials_and_a_reason(limiters: Limiters) -> None:
    async with Doors(limiters) as endpoints:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await endpoints.admin.ListRules(
                pb.ListRulesRequest(), metadata=(("authorization", "Bearer guess"),)
            )
        assert failed.value.code() == grpc.StatusCode.UNAUTHENTICATED
        who = (("authorization", "Bearer secret"),)
        assert [
            rule.name
            for rule in (await endpoints.admin.ListRules(pb.ListRulesRequest(), metadata=who)).rules
        ] == ["month"]
        subject = pb.Subject(rule="month", organisation="acme", value="acme")
        for request, field in (
            (pb.AdjustUsageRequest(subject=subject, amount=5), "reason"),
            (
                pb.AdjustUsageRequest(
                    subject=pb.Subject(rule="nope", organisation="a", value="a"), reason="x"
                ),
                "rule",
            ),
            (
                pb.AdjustUsageRequest(
                    subject=pb.Subject(rule="month", organisation="a"), reason="x"
                ),
                "value",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=field):
                await endpoints.admin.AdjustUsage(request, metadata=who)
        assert not (
            await endpoints.admin.ListChanges(pb.ListChangesRequest(), metadata=who)
        ).changes


UNMODIFIED = """
import sys
import grpc
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
entry = ratelimit_pb2.RateLimitDescriptor.Entry
entries = [entry(key="path", value="/a"), entry(key="user", value="ann")]
descriptor = ratelimit_pb2.RateLimitDescriptor(entries=entries)
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = rls_pb2_grpc.RateLimitServiceStub(channel)
    for _ in range(4):
        request = rls_pb2.RateLimitRequest(domain="edge", descriptors=[descriptor])
        answer = stub.ShouldRateLimit(request)
        status = answer.statuses[0]
        print(answer.overall_code, status.limit_remaining, status.current_limit.unit)
"""


ENVOYS = Path(__file__).parents[2] / ".venv-xds" / "bin" / "python"
"""A Python with Envoy's own stubs, made by `make xds`; they clash with ours, so they live apart
(docs/decisions/0006).
"""


async def test_an_unmodified_client_of_envoys_works(limiters: Limiters) -> None:
    if not ENVOYS.exists():
        pytest.skip(
            "Envoy's own stubs are not here; make xds puts them into an environment of their own"
        )
    async with Doors(limiters, envoy=[EDGE]) as endpoints:
        process = await asyncio.create_subprocess_exec(
            str(ENVOYS),
            "-c",
            UNMODIFIED,
            endpoints.servers[0].address,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
    assert said.decode().split("\n") == ["1 2 2", "1 1 2", "1 0 2", "2 0 2", ""]


ASKED = bytes.fromhex(
    "0a046564676512190a0a0a047061746812022f610a0b0a04757365721203616e6e12170a0b0a0674656e616e741201741204080510031a0208021803"
)
ANSWERED = bytes.fromhex(
    "0801121108011209080310021a03616e6e2202083c121b08011210080510031a0a363a74656e616e743d741803220308a00b"
    "1a140a0f726174656c696d69742d6c696d69741201331a180a13726174656c696d69742d72656d61696e696e67120130"
    "1a150a0f726174656c696d69742d726573657412023630"
)
"""A request and its response as `xds-protos` 1.85 writes them: two descriptors, an override, hits
of the request and of a descriptor.
"""


async def test_the_bytes_are_those_of_envoys_own_stubs(limiters: Limiters) -> None:
    async with Doors(limiters, envoy=[EDGE]) as endpoints:
        method = endpoints.channels[0].unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )
        assert await method(ASKED) == ANSWERED
