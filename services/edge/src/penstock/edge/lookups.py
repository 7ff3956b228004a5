"""Paths that show what is there: models, receipts, kept responses."""

from __future__ import annotations

from urllib.parse import unquote

import orjson
from penstock.edge.caller import Refused
from penstock.edge.json_fields import refused
from penstock.edge.openai_responses.response_keeper import ResponseKeeper
from penstock.edge.openai_rest.models import model_body, models_body
from penstock.edge.receipts import Receipts
from penstock.edge.router_calls import RouterCalls
from penstock.edge.served import ByMethod, Served, available
from penstock.edge.wire import Failure, FailureKind

MODELS, RECEIPTS, RESPONSES = "/v1/models", "/v1/receipts", "/v1/responses"

BELOW_RESPONSE = {"": ("GET", "DELETE"), "input_items": ("GET",), "cancel": ("POST",)}
"""What stands below the path of a kept response, and its methods."""


class Lookups:
    """Answers them. Only a key in force sees what it was told before."""

    def __init__(self, router: RouterCalls, responses: ResponseKeeper, receipts: Receipts) -> None:
        self._router = router
        self._responses = responses
        self._receipts = receipts

    async def models(self, served: Served) -> None:
        """All models."""
        await served.exchange.reply(200, models_body(await available(self._router, served)))

    async def model(self, served: Served) -> None:
        """One model."""
        name = unquote(served.exchange.path.removeprefix(f"{MODELS}/"))
        body = model_body(await available(self._router, served), name)
        if body is None:
            raise Refused(Failure(FailureKind.NOT_FOUND, f"no model is called {name!r}", "model"))
        await served.exchange.reply(200, body)

    async def receipt(self, served: Served) -> None:
        """The whole receipt of a call."""
        request_id = served.exchange.path.removeprefix(f"{RECEIPTS}/")
        await available(self._router, served)
        found = await self._receipts.find(served.key, request_id)
        if found is None:
            message = f"{request_id!r} is not among the latest receipts of this key"
            raise Refused(Failure(FailureKind.NOT_FOUND, message, code="receipt_not_found"))
        await served.exchange.reply(200, orjson.dumps(found))

    def of_response(self, below: str) -> ByMethod:
        """What answers `{id}` and what stands below it."""
        methods = BELOW_RESPONSE.get(below.partition("/")[2], ())
        return dict.fromkeys(methods, self.response)

    async def response(self, served: Served) -> None:
        """What is kept of a response."""
        exchange, key = served.exchange, served.key
        await available(self._router, served)
        response_id, _, rest = exchange.path.removeprefix(f"{RESPONSES}/").partition("/")
        if exchange.query.get("stream", "false").lower() != "false":
            raise refused("stream", "an answer that has ended is not streamed again; leave it out")
        match exchange.method, rest:
            case "DELETE", "":
                body = await self._responses.delete(key, response_id)
            case "GET", "":
                body = await self._responses.response(key, response_id)
            case "GET", "input_items":
                body = await self._responses.input_items(key, response_id, exchange.query)
            case "POST", "cancel":
                body = await self._responses.cancel(key, response_id)
            case _:
                raise Refused(no_path(exchange.path))
        await exchange.reply(200, body)


def no_path(path: str) -> Failure:
    """The failure of a request for a path that is not there."""
    message = f"there is no {path}; see the documentation for the paths"
    return Failure(FailureKind.NOT_FOUND, message, code="unknown_url")


def no_method(method: str, path: str, allowed: tuple[str, ...]) -> Failure:
    """The failure of a request whose path takes other methods."""
    message = f"{path} does not take {method}; it takes {', '.join(allowed)}"
    return Failure(FailureKind.NO_SUCH_METHOD, message, allowed=allowed)
