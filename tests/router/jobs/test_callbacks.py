"""Callbacks: where they may go, how they are signed, sent over TLS, tried again and given up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from penstock.api.common.v1 import common_pb2
from penstock.api.inference.v1 import inference_pb2
from penstock.api.router.v1 import router_pb2 as pb
from penstock.router.calls.state import Outcome
from penstock.router.jobs.callbacks import HttpsPost
from penstock.router.jobs.jobs import CALLBACK_TRIES, Jobs, callbacks
from penstock.router.requests.resolved import JobTry
from penstock.router.settings import RouterSettings
from penstock.rpc.call import Call, Principal
from penstock.service.store import embedded_store, open_store
from penstock.testkit.clock import FakeClock

HOSTS = ("hooks.example.com",)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example.com/done?x=1", True),
        ("https://hooks.example.com:443/", True),
        ("https://hooks.example.com:8443/", False),
        ("http://hooks.example.com/", False),
        ("https://user:pw@hooks.example.com/", False),
        ("https://hooks.example.com.evil.test/", False),
        ("https://hooks.example.com\r\nX: y/", False),
        ("https://hooks.example.com/\r\nX:y", False),
        ("https://[::1/", False),
        ("ftp://hooks.example.com/", False),
        ("", False),
    ],
)
def test_where_a_callback_may_go(url: str, allowed: bool) -> None:
    assert (callbacks.refused_because(url, HOSTS) == "") is allowed


@pytest.mark.threat("SSRF by a callback: an address of the own network")
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("::10.0.0.1", False),
        ("2002:a00:1::", False),
        ("fec0::1", False),
        ("240.0.0.1", False),
    ],
)
def test_never_into_our_own_network(address: str, public: bool) -> None:
    assert callbacks.is_public(address) is public


@pytest.mark.threat("replayed callback: another time or body")
def test_the_signature_covers_time_and_body() -> None:
    signed = callbacks.sign("s", 5, b"{}")
    assert signed.startswith("t=5,v1=")
    assert (
        len(
            {
                signed,
                callbacks.sign("s", 6, b"{}"),
                callbacks.sign("s", 5, b"[]"),
                callbacks.sign("z", 5, b"{}"),
            }
        )
        == 4
    )


@dataclass
class Receiver:
    """An HTTPS server that answers as told and keeps what it was sent."""

    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    requests: list[bytes] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    addresses: tuple[str, ...] = ("127.0.0.1",)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        writer.close()

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        return list(self.addresses)


HOST = "hooks.example.com"


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def post(receiver: Receiver) -> AsyncIterator[HttpsPost]:
    authority = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(HOST).configure_cert(served)
    authority.configure_trust(trusted)
    async with await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=served) as server:
        port = server.sockets[0].getsockname()[1]
        yield HttpsPost(
            port, receiver.resolve, lambda address: address == "127.0.0.1", lambda: trusted
        )


async def test_one_request_over_tls_to_the_address_that_was_resolved_once(
    post: HttpsPost, receiver: Receiver
) -> None:
    assert await post(f"https://{HOST}/done?job=1", b'{"a":1}', "t=5,v1=ab") == 204
    [request] = receiver.requests
    assert request.startswith(b"POST /done?job=1 HTTP/1.1\r\nHost: hooks.example.com\r\n")
    assert b"\r\npenstock-signature: t=5,v1=ab\r\n" in request
    assert request.endswith(b'\r\n\r\n{"a":1}')
    assert receiver.resolved == [HOST]


@pytest.mark.threat("SSRF by a callback: a redirect")
async def test_a_redirect_is_not_followed(post: HttpsPost, receiver: Receiver) -> None:
    receiver.answer = b"HTTP/1.1 302 Found\r\nLocation: https://hooks.example.com/elsewhere\r\n\r\n"
    assert await post(f"https://{HOST}/", b"{}", "") == 302
    assert len(receiver.requests) == 1


@pytest.mark.threat("SSRF by a callback: a name that leads inside")
@pytest.mark.parametrize(
    "addresses", [(), ("10.0.0.1",), ("127.0.0.1", "169.254.169.254"), ("::ffff:10.0.0.1",)]
)
async def test_a_name_that_leads_inside_is_never_called(
    post: HttpsPost, receiver: Receiver, addresses: tuple[str, ...]
) -> None:
    receiver.addresses = addresses
    with pytest.raises(OSError, match="public"):
        await post(f"https://{HOST}/", b"{}", "")
    assert receiver.requests == []


@pytest.mark.threat("SSRF by a callback: a name of this machine")
async def test_the_system_resolves_and_inside_is_refused_by_default() -> None:
    with pytest.raises(OSError, match="public"):
        await HttpsPost()("https://localhost/", b"{}", "")


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"", b"x" * 100_000])
async def test_what_is_not_http_is_no_answer(
    post: HttpsPost, receiver: Receiver, answer: bytes
) -> None:
    receiver.answer = answer
    with pytest.raises(OSError, match="HTTP"):
        await post(f"https://{HOST}/", b"{}", "")


@pytest.mark.threat("wrong host: a receiver of callbacks")
async def test_a_certificate_of_another_name_is_refused(
    post: HttpsPost, receiver: Receiver
) -> None:
    with pytest.raises(ssl.SSLError):
        await post("https://other.example.com/", b"{}", "")
    assert receiver.requests == []


@dataclass
class Scripted:
    """Answers with these statuses in turn; an exception is raised."""

    answers: list[int | OSError]
    sent: list[tuple[str, bytes, str]] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, url: str, body: bytes, signature: str) -> int:
        self.sent.append((url, body, signature))
        answer = self.answers.pop(0) if self.answers else 500
        self.told.set()
        if isinstance(answer, OSError):
            raise answer
        return answer


async def serve(request: pb.SubmitJobRequest, call: Call, attempt: JobTry) -> Outcome:
    return Outcome(inference_pb2.TaskResult(revision="7"), common_pb2.Receipt(request_id="r"))


Start = Callable[[Scripted], Jobs]
SECRET, URL = "s3cret", f"https://{HOST}/done"


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(1_800_000_000.0)


@pytest.fixture
async def start(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Start]:
    settings = RouterSettings(callback_hosts=HOSTS, callback_secret=SECRET)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_store(tmp_path / "redis"))
        store = await stack.enter_async_context(open_store(url))

        def build(told: Scripted) -> Jobs:
            jobs = Jobs(settings, store, serve, clock, told)
            jobs.start()
            stack.push_async_callback(jobs.close)
            return jobs

        yield build


async def submit(jobs: Jobs) -> str:
    task = inference_pb2.Task(embed=inference_pb2.EmbedTask(texts=["x"]))
    job = await jobs.submit(
        pb.SubmitJobRequest(task=task, callback_url=URL), Call(Principal("acme"))
    )
    return str(job.id)


async def sent(told: Scripted, clock: FakeClock, count: int) -> None:
    """Let time pass until so many callbacks have been sent."""
    async with asyncio.timeout(20):
        while len(told.sent) < count:
            await clock.advance(0.5)
            await asyncio.sleep(0.001)


async def test_an_ended_job_is_told_signed_and_again_until_it_is_taken(
    start: Start, clock: FakeClock
) -> None:
    told = Scripted([OSError("no route"), 302, 503, 200])
    job_id = await submit(start(told))
    await sent(told, clock, 4)
    for url, body, signature in told.sent:
        at, _, digest = signature.removeprefix("t=").partition(",v1=")
        assert (url, json.loads(body)["id"], json.loads(body)["state"]) == (
            URL,
            job_id,
            "JOB_STATE_SUCCEEDED",
        )
        assert (
            digest
            == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        )
    stamps = [int(signature[2:].split(",")[0]) for _, _, signature in told.sent]
    assert stamps == sorted(set(stamps)), "each try is signed with its own time"
    for _ in range(200):
        await clock.advance(1)
    assert len(told.sent) == 4


async def test_a_receiver_that_does_not_want_it_is_not_asked_again(
    start: Start, clock: FakeClock
) -> None:
    told = Scripted([410])
    await submit(start(told))
    await sent(told, clock, 1)
    for _ in range(200):
        await clock.advance(1)
    assert len(told.sent) == 1


async def test_one_that_never_answers_is_given_up(
    start: Start, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    told = Scripted([])
    await submit(start(told))
    await sent(told, clock, CALLBACK_TRIES)
    async with asyncio.timeout(20):
        while "given up" not in caplog.text:
            await clock.advance(1)
            await asyncio.sleep(0.001)
    assert len(told.sent) == CALLBACK_TRIES
