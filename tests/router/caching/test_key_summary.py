"""What a router knows of the cache's keys: errs towards asking, follows news, is made anew; and
what it brings unasked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Any

import pytest
from penstock.api.cache.v1 import cache_pb2 as pb
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2
from penstock.prices.prices import Prices
from penstock.router.caching import known_keys as module
from penstock.router.caching.cache_lookup import CacheRecall
from penstock.router.caching.known_keys import Kept
from penstock.router.stages import NotFound, finish
from penstock.rpc.call import Call, Principal
from penstock.rpc.dispatch import MAX_REQUEST_BYTES
from penstock.rpc.errors import unavailable
from penstock.tasks.answer_keys import FINGERPRINT_BYTES, exact_key, tenant_of
from penstock.testkit.clock import FakeClock

ANN, BOB = Call(Principal("acme"), deadline_s=1e12), Call(Principal("bolt"), deadline_s=1e12)
OPTIONS = router_pb2.CallOptions()
SALT = b"salt"


class Counter:
    """A cache's contract: pages to list, what was brought, what was looked up."""

    def __init__(self) -> None:
        self.pages: deque[pb.ListKeysResponse] = deque()
        self.brought: list[tuple[str, list[pb.Answer]]] = []
        self.calls: list[str] = []
        self.cursors: list[str] = []
        self.gone = False

    async def call(self, method: str, request: Any, call: Call) -> Any:
        self.calls.append(method)
        if self.gone:
            raise unavailable("gone")
        if method == "ListKeys":
            self.cursors.append(request.cursor)
            return (
                self.pages.popleft()
                if self.pages
                else pb.ListKeysResponse(salt=SALT, cursor="f", complete=True)
            )
        if method == "StoreAll":
            self.brought.append((call.principal.organisation, list(request.answers)))
            return pb.StoreAllResponse(stored=len(request.answers))
        return pb.LookUpResponse(token=request.token)

    def stream(self, method: str, request: Any, call: Call) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        return None

    def asked(self, method: str) -> int:
        return self.calls.count(method)


def task(text: str) -> inference_pb2.Task:
    return inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=[text]))


def fingerprint(text: str, call: Call = ANN) -> bytes:
    body = task(text).SerializeToString(deterministic=True)
    return bytes.fromhex(exact_key(SALT, tenant_of(call.principal), "", "m", b"", body))[
        :FINGERPRINT_BYTES
    ]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def started(*told: str) -> tuple[CacheRecall, Counter, FakeClock]:
    """A router that knows of the keys of some texts."""
    counter, clock = Counter(), FakeClock(1_000.0)
    counter.pages.append(
        pb.ListKeysResponse(salt=SALT, cursor="s", fingerprints=b"".join(map(fingerprint, told)))
    )
    recall = CacheRecall(counter, lambda: Prices({}), clock)
    recall.deposits.start()
    await turns()
    return recall, counter, clock


async def missed(
    recall: CacheRecall, text: str, call: Call = ANN, options: router_pb2.CallOptions = OPTIONS
) -> NotFound:
    found = await recall.look_up(call, options, task(text), "m", "")
    assert isinstance(found, NotFound)
    return found


def test_a_summary_never_lacks_what_it_was_told_and_seldom_has_more() -> None:
    kept, told = Kept(), [secrets.token_bytes(16) for _ in range(2_000)]
    assert kept.lacks(told[0].hex())
    kept.add(b"".join(key[:FINGERPRINT_BYTES] for key in told))
    assert not any(kept.lacks(key.hex()) for key in told)
    assert sum(kept.lacks(secrets.token_hex(16)) for _ in range(2_000)) >= 1_990


async def test_what_is_not_kept_is_not_looked_up_and_brought_together() -> None:
    recall, counter, clock = await started("known")
    for call, text in ((ANN, "a"), (ANN, "b"), (BOB, "a")):
        found = await missed(recall, text, call)
        assert found.cache is not None
        assert found.cache.rule == "miss: known not to be kept"
        await finish(recall.store(found.token, inference_pb2.TaskResult(revision="7"), None))
    assert counter.asked("LookUp") == 0
    await clock.advance(0.02)
    await turns()
    brought = [
        (tenant, [one.task.embed.texts[0] for one in answers])
        for tenant, answers in counter.brought
    ]
    assert brought == [("acme", ["a", "b"]), ("bolt", ["a"])]
    assert counter.brought[0][1][0].result.revision == "7"
    await recall.close()


async def test_what_may_be_kept_is_asked_for_and_so_is_what_costs_to_repeat() -> None:
    recall, counter, _ = await started("known")
    await missed(recall, "known")
    chat = inference_pb2.Task(generate=inference_pb2.GenerateTask(max_tokens=5))
    await recall.look_up(ANN, OPTIONS, chat, "m", "")
    assert counter.asked("LookUp") == 2
    await recall.close()


async def test_keys_that_come_later_are_heard_of() -> None:
    recall, counter, clock = await started()
    counter.pages.append(
        pb.ListKeysResponse(salt=SALT, cursor="g", complete=True, fingerprints=fingerprint("a"))
    )
    await clock.advance(0.2)
    await turns()
    await missed(recall, "a")
    assert counter.asked("LookUp") == 1
    assert counter.cursors[:3] == ["", "s", "f"]
    await recall.close()


async def test_nothing_is_skipped_before_all_keys_were_told_or_when_the_cache_is_gone() -> None:
    counter, clock = Counter(), FakeClock(1_000.0)
    counter.gone = True
    recall = CacheRecall(counter, lambda: Prices({}), clock)
    recall.deposits.start()
    await turns()
    assert (await missed(recall, "a")).notes == ("cache unavailable",)
    counter.gone = False
    await clock.advance(1.1)
    await turns()
    assert (await missed(recall, "b")).notes == ()
    counter.gone = True
    await clock.advance(0.2)
    await turns()
    assert (await missed(recall, "c")).notes == ("cache unavailable",)
    await recall.close()


async def test_nothing_is_brought_for_failures_or_for_who_forbids_it() -> None:
    recall, counter, clock = await started()
    await finish(recall.store((await missed(recall, "a")).token, None, None))
    forbids = router_pb2.CallOptions(cache=router_pb2.CachePolicy(no_store=True))
    found = await missed(recall, "b", options=forbids)
    await finish(recall.store(found.token, inference_pb2.TaskResult(), None))
    await clock.advance(1.0)
    await turns()
    assert counter.brought == []
    await recall.close()


async def test_closing_brings_what_waits() -> None:
    recall, counter, clock = await started()
    found = await missed(recall, "a")
    await finish(recall.store(found.token, inference_pb2.TaskResult(), None))
    closing = asyncio.create_task(recall.close())
    await turns()
    await clock.advance(0.02)
    await closing
    assert len(counter.brought) == 1


async def test_answers_that_are_more_than_one_message_are_brought_in_parts() -> None:
    recall, counter, clock = await started()
    large = inference_pb2.TaskResult(revision="x" * (MAX_REQUEST_BYTES // 3))
    for text in "abcde":
        found = await missed(recall, text)
        await finish(recall.store(found.token, large, None))
    await clock.advance(0.02)
    await turns()
    assert [len(answers) for _, answers in counter.brought] == [2, 2, 1]
    await recall.close()


async def test_a_summary_full_of_what_has_left_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RENEW_AFTER", 1)
    recall, counter, clock = await started()
    news = b"".join(map(fingerprint, ("a", "b", "c")))
    counter.pages.append(
        pb.ListKeysResponse(salt=SALT, cursor="g", complete=True, fingerprints=news)
    )
    await clock.advance(0.2)
    await turns()
    await clock.advance(0.2)
    await turns()
    assert counter.cursors.count("") == 2
    await missed(recall, "a")
    assert counter.asked("LookUp") == 0
    await recall.close()
