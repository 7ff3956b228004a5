"""The limiter's other services on real servers: Envoy's protocol and the operators'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.api.envoy import ratelimit_pb2_grpc as rls_grpc
from penstock.api.limiter.v1 import limiter_pb2 as pb
from penstock.api.limiter.v1 import limiter_pb2_grpc
from penstock.hosting.grpc_server import GrpcServer
from penstock.limiter.api.admin_service import AdminServicer
from penstock.limiter.api.envoy_service import EnvoyServicer
from penstock.rpc.endpoint import Endpoint
from penstock.rpc.operators import operator_authenticator
from penstock.service.settings import ServiceSettings

Limiters = Any
"""The fixture of conftest.py, and `Limiter`, what it makes."""
Limiter = Any
ADMIN = pb.DESCRIPTOR.services_by_name["LimiterAdminService"]
OVER, OK = rls.RateLimitResponse.OVER_LIMIT, rls.RateLimitResponse.OK
MONTH_BUDGET = {
    "name": "month",
    "kind": "budget",
    "counts": "microusd",
    "limit": 1_000,
    "window": "month",
    "calendar": True,
}
ENVOY_RULE = {
    "domain": "edge",
    "descriptor": ["path", "user=ann"],
    "requests_per_unit": 3,
    "unit": "minute",
    "name": "ann",
}
ANN = {"path": "/a", "user": "ann"}
OLGA = (("authorization", "Bearer secret"),)
"""Credentials of the operator."""
SUBJECT = pb.Subject(rule="month", organisation="acme", value="acme")


def envoy_request(*descriptors: dict[str, str], hits: int = 0) -> rls.RateLimitRequest:
    request = rls.RateLimitRequest(domain="edge", hits_addend=hits)
    for descriptor in descriptors:
        row = request.descriptors.add()
        for key, value in descriptor.items():
            row.entries.add(key=key, value=value)
    return request


class Servers:
    """Envoy's and the operators' service of one limiter, each on a port of its own."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        # The store may be slow on a busy machine, and these tests are not about that.
        envoy = EnvoyServicer(limiter.service, limiter.store, max_store_wait_s=10.0)
        authenticate = operator_authenticator({"secret": "olga"})
        admin = Endpoint(ADMIN, AdminServicer(limiter.service, limiter.store), authenticate)
        settings = ServiceSettings(listen="127.0.0.1:0", drain_s=0)
        self._envoy_server = GrpcServer(
            "envoy",
            settings,
            [],
            foreign=[lambda to: rls_grpc.add_RateLimitServiceServicer_to_server(envoy, to)],
        )
        self._admin_server = GrpcServer("admin", settings, [admin])

    @property
    def envoy_address(self) -> str:
        return self._envoy_server.address

    async def start(self) -> None:
        await self._envoy_server.start()
        await self._admin_server.start()
        self.envoy_channel = grpc.aio.insecure_channel(self._envoy_server.address)
        self._admin_channel = grpc.aio.insecure_channel(self._admin_server.address)
        self.envoy = rls_grpc.RateLimitServiceStub(self.envoy_channel)
        self.admin = limiter_pb2_grpc.LimiterAdminServiceStub(self._admin_channel)

    async def stop(self) -> None:
        await self.envoy_channel.close()
        await self._admin_channel.close()
        await self._envoy_server.stop(None)
        await self._admin_server.stop(None)


@pytest.fixture
async def serve(limiters: Limiters) -> AsyncIterator[Any]:
    """Starts servers of a limiter with the budget of a month and some Envoy rules."""
    started: list[Servers] = []

    async def start(*envoy_rules: dict[str, object], shadow: bool = False) -> Servers:
        limiter = limiters.make(MONTH_BUDGET, envoy=list(envoy_rules), shadow=shadow)
        servers = Servers(limiter)
        started.append(servers)
        await servers.start()
        return servers

    yield start
    for servers in started:
        await servers.stop()


async def test_envoys_requests_are_counted_down(serve: Any) -> None:
    servers = await serve(ENVOY_RULE)
    for left in (2, 1, 0):
        response = await servers.envoy.ShouldRateLimit(envoy_request(ANN))
        assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, left)


async def test_a_refusal_names_the_limit_and_says_when_it_resets(serve: Any) -> None:
    servers = await serve(ENVOY_RULE)
    await servers.envoy.ShouldRateLimit(envoy_request(ANN, hits=3))
    response = await servers.envoy.ShouldRateLimit(envoy_request(ANN))
    status = response.statuses[0]
    assert (response.overall_code, status.code) == (OVER, OVER)
    assert status.current_limit.name == "ann"
    assert status.duration_until_reset.seconds == 60
    assert {header.key: header.value for header in response.response_headers_to_add} == {
        "ratelimit-limit": "3",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "60",
    }


async def test_each_value_of_an_entry_is_counted_by_itself(serve: Any) -> None:
    servers = await serve(ENVOY_RULE)
    await servers.envoy.ShouldRateLimit(envoy_request(ANN, hits=3))
    other_path, other_user = {"path": "/b", "user": "ann"}, {"path": "/a", "user": "bob"}
    response = await servers.envoy.ShouldRateLimit(envoy_request(other_path, other_user))
    assert [status.code for status in response.statuses] == [OK, OK]


async def test_nothing_is_counted_unless_every_descriptor_passes(serve: Any) -> None:
    servers = await serve(ENVOY_RULE)
    request = envoy_request(ANN, {"path": "/b", "user": "ann"})
    request.descriptors[1].hits_addend.value = 4
    response = await servers.envoy.ShouldRateLimit(request)
    assert response.overall_code == OVER
    assert [status.code for status in response.statuses] == [OK, OVER]
    assert response.statuses[0].limit_remaining == 3


async def test_a_repeated_descriptor_is_counted_twice_and_never_exceeds_the_limit(
    serve: Any,
) -> None:
    servers = await serve(ENVOY_RULE)
    twice = envoy_request(ANN, ANN)
    response = await servers.envoy.ShouldRateLimit(twice)
    assert response.overall_code == OK
    assert [status.limit_remaining for status in response.statuses] == [1, 1]
    response = await servers.envoy.ShouldRateLimit(twice)
    assert response.overall_code == OVER
    assert [status.code for status in response.statuses] == [OVER, OVER]


async def test_rules_in_shadow_count_and_refuse_nothing(serve: Any) -> None:
    servers = await serve(ENVOY_RULE, shadow=True)
    for _ in range(2):
        response = await servers.envoy.ShouldRateLimit(envoy_request(ANN, hits=3))
        assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, 0)
    allowed = await servers.limiter.reserve("a", 2_000)
    assert allowed.verdict == pb.VERDICT_ALLOWED


async def test_one_rule_in_shadow_refuses_nothing(serve: Any) -> None:
    servers = await serve({**ENVOY_RULE, "shadow": True})
    response = await servers.envoy.ShouldRateLimit(envoy_request(ANN, hits=50))
    assert response.overall_code == OK


async def test_a_tree_of_descriptors_shares_what_it_says_and_leaves_the_rest(serve: Any) -> None:
    tree = {
        "domain": "edge",
        "descriptors": [
            {
                "key": "path",
                "value": "/v1/*",
                "share_threshold": True,
                "rate_limit": {"unit": "minute", "requests_per_unit": 2},
            },
            {"key": "path", "value": "/health", "rate_limit": {"unlimited": True}},
        ],
    }
    servers = await serve(tree)
    for page, code in (("a", OK), ("b", OK), ("c", OVER)):
        response = await servers.envoy.ShouldRateLimit(envoy_request({"path": f"/v1/{page}"}))
        assert response.overall_code == code
        assert response.statuses[0].current_limit.name == "path=/v1/*"
    unlimited = await servers.envoy.ShouldRateLimit(envoy_request({"path": "/health"}, hits=99))
    assert unlimited.overall_code == OK
    assert not unlimited.statuses[0].HasField("current_limit")


@pytest.mark.standard_case(36)
async def test_descriptors_that_look_alike_are_counted_apart(serve: Any) -> None:
    rules = [
        {"domain": "edge", "descriptor": entries, "requests_per_unit": 1, "unit": "minute"}
        for entries in (["a"], ["a", "b"])
    ]
    servers = await serve(*rules)
    for descriptor in ({"a": "x|1:b=y"}, {"a": "x", "b": "y"}):
        response = await servers.envoy.ShouldRateLimit(envoy_request(descriptor))
        assert response.overall_code == OK


async def test_a_descriptor_may_bring_its_own_limit(serve: Any) -> None:
    servers = await serve()
    request = envoy_request({"tenant": "t"}, hits=5)
    request.descriptors[0].limit.requests_per_unit = 5
    request.descriptors[0].limit.unit = rls.HOUR
    assert (await servers.envoy.ShouldRateLimit(request)).overall_code == OK
    response = await servers.envoy.ShouldRateLimit(request)
    assert response.overall_code == OVER
    assert response.statuses[0].current_limit.unit == rls.HOUR


async def test_of_a_repeated_descriptor_with_two_limits_the_last_one_counts(serve: Any) -> None:
    servers = await serve()
    request = envoy_request({"tenant": "t"}, {"tenant": "t"}, hits=2)
    for descriptor, limit in zip(request.descriptors, (5, 3), strict=True):
        descriptor.limit.requests_per_unit = limit
        descriptor.limit.unit = rls.HOUR
    assert (await servers.envoy.ShouldRateLimit(request)).overall_code == OVER
    request.descriptors[1].limit.requests_per_unit = 4
    assert (await servers.envoy.ShouldRateLimit(request)).overall_code == OK


@pytest.mark.parametrize(
    ("request_", "field"), [(rls.RateLimitRequest(), "domain"), (envoy_request(), "descriptors")]
)
async def test_a_bad_request_of_envoys_names_the_field(
    serve: Any, request_: rls.RateLimitRequest, field: str
) -> None:
    servers = await serve()
    with pytest.raises(grpc.aio.AioRpcError, match=field) as failed:
        await servers.envoy.ShouldRateLimit(request_)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_operator_corrects_a_budget(serve: Any) -> None:
    servers = await serve()
    await servers.limiter.reserve("a", 900)
    await servers.limiter.commit("a", 900)
    adjusted = await servers.admin.AdjustUsage(
        pb.AdjustUsageRequest(subject=SUBJECT, amount=-300, reason="goodwill"), metadata=OLGA
    )
    assert adjusted.committed == 600
    reset = await servers.admin.ResetUsage(
        pb.ResetUsageRequest(subject=SUBJECT, reason="new deal"), metadata=OLGA
    )
    assert reset.committed == 600
    verified = await servers.admin.VerifyLedger(
        pb.VerifyLedgerRequest(organisation="acme"), metadata=OLGA
    )
    assert list(verified.differing) == []


async def test_an_operator_sets_a_limit_and_sees_it_in_the_usage(serve: Any) -> None:
    servers = await serve()
    await servers.admin.SetLimit(
        pb.SetLimitRequest(subject=SUBJECT, limit=5_000, reason="bigger plan"), metadata=OLGA
    )
    shown = await servers.admin.ShowUsage(
        pb.ShowUsageRequest(path=pb.Path(organisation="acme")), metadata=OLGA
    )
    assert shown.rules[0].limit.microusd == 5_000


async def test_every_change_stands_in_the_audit_log(serve: Any) -> None:
    servers = await serve()
    await servers.admin.AdjustUsage(
        pb.AdjustUsageRequest(subject=SUBJECT, amount=-300, reason="goodwill"), metadata=OLGA
    )
    drained = await servers.admin.DrainOrganisation(
        pb.DrainOrganisationRequest(organisation="acme", drain=True, reason="closing"),
        metadata=OLGA,
    )
    assert drained.open_holds == 0
    changes = (await servers.admin.ListChanges(pb.ListChangesRequest(), metadata=OLGA)).changes
    assert [change.action for change in changes] == ["DrainOrganisation", "AdjustUsage"]
    assert {change.operator for change in changes} == {"olga"}
    assert changes[-1].target == "month of acme/acme -300"


async def test_operators_need_their_credentials(serve: Any) -> None:
    servers = await serve()
    guess = (("authorization", "Bearer guess"),)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await servers.admin.ListRules(pb.ListRulesRequest(), metadata=guess)
    assert failed.value.code() == grpc.StatusCode.UNAUTHENTICATED
    listed = await servers.admin.ListRules(pb.ListRulesRequest(), metadata=OLGA)
    assert [rule.name for rule in listed.rules] == ["month"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AdjustUsageRequest(subject=SUBJECT, amount=5), "reason"),
        (
            pb.AdjustUsageRequest(
                subject=pb.Subject(rule="nope", organisation="a", value="a"), reason="x"
            ),
            "rule",
        ),
        (
            pb.AdjustUsageRequest(subject=pb.Subject(rule="month", organisation="a"), reason="x"),
            "value",
        ),
    ],
)
async def test_a_bad_change_names_the_field_and_is_not_recorded(
    serve: Any, request_: pb.AdjustUsageRequest, field: str
) -> None:
    servers = await serve()
    with pytest.raises(grpc.aio.AioRpcError, match=field):
        await servers.admin.AdjustUsage(request_, metadata=OLGA)
    assert not (await servers.admin.ListChanges(pb.ListChangesRequest(), metadata=OLGA)).changes


UNMODIFIED_CLIENT = """
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


ENVOY_PYTHON = Path(__file__).parents[2] / ".venv-xds" / "bin" / "python"
"""A Python with Envoy's own stubs, made by `make xds`. They cannot be imported beside ours
(docs/decisions/0006).
"""


async def test_an_unmodified_client_of_envoys_works(serve: Any) -> None:
    if not ENVOY_PYTHON.exists():
        pytest.skip("Envoy's own stubs are missing: `make xds` installs them in .venv-xds")
    servers = await serve(ENVOY_RULE)
    process = await asyncio.create_subprocess_exec(
        str(ENVOY_PYTHON),
        "-c",
        UNMODIFIED_CLIENT,
        servers.envoy_address,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode().split("\n") == ["1 2 2", "1 1 2", "1 0 2", "2 0 2", ""]


REQUEST_BYTES = bytes.fromhex(
    "0a046564676512190a0a0a047061746812022f610a0b0a04757365721203616e6e12170a0b0a0674"
    "656e616e741201741204080510031a0208021803"
)
RESPONSE_BYTES = bytes.fromhex(
    "0801121108011209080310021a03616e6e2202083c12190801120e080510031a0874656e616e743d"
    "741803220308a00b1a140a0f726174656c696d69742d6c696d69741201331a180a13726174656c69"
    "6d69742d72656d61696e696e671201301a150a0f726174656c696d69742d72657365741202363"
    "0"
)
"""A request and its response as `xds-protos` 1.85 writes them: two descriptors, an override, hits
of the request and of a descriptor.
"""


async def test_the_bytes_are_those_of_envoys_own_stubs(serve: Any) -> None:
    servers = await serve(ENVOY_RULE)
    method = servers.envoy_channel.unary_unary(
        "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    )
    assert await method(REQUEST_BYTES) == RESPONSE_BYTES
