"""Envoy's rate limit service, version 3: descriptors in, a verdict for each and for all out.

The service answers by the rule's `open` where its store takes longer than ten milliseconds, so
what it counts is looked at until it holds.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from penstock.api.envoy import ratelimit_pb2 as rls
from penstock.testkit.eventually import eventually

from .calls import Api, refused

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="session")]
OK, OVER = rls.RateLimitResponse.OK, rls.RateLimitResponse.OVER_LIMIT
_paths = itertools.count()


def descriptor(limit: tuple[int, int] | None = None, **entries: str) -> rls.RateLimitDescriptor:
    made = rls.RateLimitDescriptor()
    for key, value in entries.items():
        made.entries.add(key=key, value=value)
    if limit:
        made.limit.requests_per_unit, made.limit.unit = limit  # type: ignore[assignment]
    return made


async def ask(api: Api, *descriptors: rls.RateLimitDescriptor, hits: int = 0) -> Any:
    request = rls.RateLimitRequest(domain="edge", descriptors=descriptors, hits_addend=hits)
    return await api.envoy.ShouldRateLimit(request)


async def used_up(api: Api, *, path: str) -> tuple[list[int], Any]:
    """Ask for a path of the user ann until it is refused: what was left each time, the refusal."""
    left: list[int] = []
    while (answer := await ask(api, descriptor(path=path, user="ann"))).overall_code == OK:
        left.append(answer.statuses[0].limit_remaining)
        assert len(left) < 20
    return left, answer


async def test_a_rule_of_the_file_counts_down_and_refuses(api: Api) -> None:
    """Three an hour for each path of the user ann."""

    async def counted_down() -> Any:
        left, refusal = await used_up(api, path=f"/{next(_paths)}")
        assert left == [2, 1, 0]
        return refusal

    answer = await eventually(counted_down)
    (status,) = answer.statuses
    assert (status.code, status.limit_remaining) == (OVER, 0)
    assert (status.current_limit.name, status.current_limit.requests_per_unit) == ("ann", 3)
    assert status.current_limit.unit == rls.HOUR
    assert 3_500 < status.duration_until_reset.seconds <= 3_600
    headers = {header.key: header.value for header in answer.response_headers_to_add}
    assert headers["ratelimit-limit"] == "3"
    assert headers["ratelimit-remaining"] == "0"
    assert 3_500 < int(headers["ratelimit-reset"]) <= 3_600


async def test_another_path_is_another_counter_and_another_user_no_rule(api: Api) -> None:
    path = f"/{next(_paths)}"
    await used_up(api, path=path)
    answer = await ask(
        api, descriptor(path=f"{path}/other", user="ann"), descriptor(path=path, user="bob")
    )
    assert [status.code for status in answer.statuses] == [OK, OK]
    assert not answer.statuses[1].HasField("current_limit")


async def test_nothing_is_counted_unless_every_descriptor_passes(api: Api) -> None:
    path = f"/{next(_paths)}"
    fits, too_much = descriptor(path=path, user="ann"), descriptor(path=f"{path}/b", user="ann")
    too_much.hits_addend.value = 4

    async def refused_together() -> None:
        answer = await ask(api, fits, too_much)
        assert answer.overall_code == OVER
        assert [status.code for status in answer.statuses] == [OK, OVER]
        assert answer.statuses[0].limit_remaining == 3

    await eventually(refused_together)


async def test_a_descriptor_may_bring_its_limit_and_a_request_its_weight(api: Api) -> None:
    own = descriptor((5, rls.MINUTE), tenant=f"t-{next(_paths)}")

    async def over() -> None:
        answer = await ask(api, own, hits=6)
        assert answer.overall_code == OVER
        assert answer.statuses[0].current_limit.requests_per_unit == 5
        assert answer.statuses[0].current_limit.unit == rls.MINUTE

    await eventually(over)


async def test_a_rule_in_shadow_refuses_nothing(api: Api) -> None:
    answer = await ask(api, descriptor(shadowed="yes"), hits=50)
    assert answer.overall_code == OK


@pytest.mark.parametrize(
    "request_",
    [
        rls.RateLimitRequest(domain="edge"),
        rls.RateLimitRequest(descriptors=[descriptor(a="b")]),
    ],
)
async def test_a_request_without_domain_or_descriptors_is_refused(
    api: Api, request_: rls.RateLimitRequest
) -> None:
    assert (await refused(api.envoy.ShouldRateLimit(request_))).code == "INVALID_ARGUMENT"
