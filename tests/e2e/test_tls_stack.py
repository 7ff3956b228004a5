"""The whole stack over TLS, as `make up TLS=1` starts it, and clients as their users run them: the
client library, the command, and HTTP clients of others. One stack serves all tests here.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio
from penstock.client import Penstock, Unavailable
from penstock.stack.plan import DEFAULT_MODEL
from penstock.stack.stack import WholeStack
from running_command import Ended, run_command
from running_stack import INSTANCES, KEY, embed, stack_in

from tests.tls.conftest import certificates_below

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]
DIMENSIONS = 384


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeStack]:
    async with stack_in(tmp_path_factory.mktemp("tls"), home, "cell", tls=True) as started:
        yield started


@pytest.fixture
def ca(stack: WholeStack) -> Path:
    """The authority of the stack's certificates, as `make up TLS=1` names it."""
    folder = stack.plan.identities.certificates
    assert folder is not None
    return folder / "ca.crt"


@pytest.fixture
def wrong_ca(tmp_path: Path) -> Path:
    """An authority that has issued none of them."""
    files = certificates_below(tmp_path).issue("nobody")
    assert files.authorities is not None
    return files.authorities


async def test_the_services_call_each_other(stack: WholeStack) -> None:
    receipt = (await embed(stack, "a text that nobody has sent")).receipt
    assert receipt.route.instance_id in INSTANCES
    assert not [note for note in receipt.notes if "unavailable" in note]


async def test_the_client_library_is_given_the_authority(stack: WholeStack, ca: Path) -> None:
    for plain in (False, True):
        async with Penstock(stack.addresses["router"], KEY, ca=ca, plain=plain) as client:
            answer = await client.embed(["hello"])
        assert len(answer.embeddings[0].values) == DIMENSIONS


@pytest.mark.threat("wrong authority: the client library at a running stack")
async def test_the_client_library_refuses_another_authority(
    stack: WholeStack, wrong_ca: Path
) -> None:
    async with Penstock(stack.addresses["router"], KEY, ca=wrong_ca, retries=0) as client:
        with pytest.raises(Unavailable, match=r"certificate is refused: .*check `ca`"):
            await client.embed(["hello"])


async def penstock(stack: WholeStack, *arguments: str, ca: Path | None) -> Ended:
    """The command at this stack."""
    where = ("--address", stack.addresses["router"], "--key", KEY)
    return await run_command(*where, *(("--ca", str(ca)) if ca else ()), *arguments)


async def test_the_command_is_given_the_authority(stack: WholeStack, ca: Path) -> None:
    ended = await penstock(stack, "--json", "embed", "hello", ca=ca)
    assert (ended.status, ended.error) == (0, "")
    assert len(json.loads(ended.out)["embeddings"][0]["values"]) == DIMENSIONS


@pytest.mark.threat("wrong authority: the command")
async def test_the_command_refuses_another_authority(stack: WholeStack, wrong_ca: Path) -> None:
    ended = await penstock(stack, "embed", "hello", ca=wrong_ca)
    assert ended.status != 0
    assert "the server's certificate is refused" in ended.error
    assert "Traceback" not in ended.error


async def test_the_command_says_that_the_stack_speaks_tls(stack: WholeStack) -> None:
    ended = await penstock(stack, "embed", "hello", ca=None)
    assert ended.status != 0
    assert "the server speaks TLS" in ended.error


def http_client(ca: Path) -> httpx.AsyncClient:
    """A client that believes one authority."""
    context = ssl.create_default_context(cafile=str(ca))
    return httpx.AsyncClient(verify=context, trust_env=False, timeout=30)


async def test_the_edge_serves_https(stack: WholeStack, ca: Path) -> None:
    url = f"https://{stack.addresses['edge']}/v1/models"
    async with http_client(ca) as client:
        answer = await client.get(url, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    assert DEFAULT_MODEL in {row["id"] for row in answer.json()["data"]}


async def test_openais_own_client_is_served_over_https(stack: WholeStack, ca: Path) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"https://{stack.addresses['edge']}/v1", api_key=KEY, http_client=http_client(ca)
    ) as client:
        answer = await client.embeddings.create(model=DEFAULT_MODEL, input="hello")
    assert len(answer.data[0].embedding) == DIMENSIONS


@pytest.mark.threat("wrong authority: an HTTP client at the edge")
async def test_an_http_client_refuses_another_authority(stack: WholeStack, wrong_ca: Path) -> None:
    async with http_client(wrong_ca) as client:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await client.get(f"https://{stack.addresses['edge']}/v1/models")


@pytest.mark.threat("plaintext downgrade at the edge")
async def test_the_edge_takes_no_plaintext(stack: WholeStack) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://{stack.addresses['edge']}/v1/models")
