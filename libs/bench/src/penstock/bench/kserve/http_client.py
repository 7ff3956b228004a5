"""The protocol over HTTP (Open Inference Protocol), by its definition."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
from penstock.bench.kserve.clients import (
    OF_STATUS,
    TIMEOUT_S,
    Answer,
    Ask,
    Json,
    Refused,
    packed,
)
from penstock.bench.kserve.targets import Target

JSON_LENGTH = "Inference-Header-Content-Length"


class HttpClient:
    """See Client."""

    def __init__(self, target: Target, with_key: bool = True) -> None:
        self.http = httpx.AsyncClient(
            base_url=f"http://{target.http}",
            headers=target.headers if with_key else {},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    async def close(self) -> None:
        await self.http.aclose()

    async def live(self) -> bool:
        return (await self.http.get("/v2/health/live")).status_code == 200

    async def ready(self) -> bool:
        return (await self.http.get("/v2/health/ready")).status_code == 200

    async def server(self) -> Json:
        told: Json = await self._json("GET", "/v2")
        return told

    async def model_ready(self, name: str, version: str = "") -> bool:
        response = await self.http.get(f"{path_of(name, version)}/ready")
        if response.status_code == 401:
            _refuse(response)
        return response.status_code == 200

    async def model(self, name: str, version: str = "") -> Json:
        told: Json = await self._json("GET", path_of(name, version))
        for side in ("inputs", "outputs"):
            told[side] = [(row["name"], row["datatype"], row["shape"]) for row in told[side]]
        return told

    async def config(self, name: str) -> Json:
        told = await self._json("GET", f"{path_of(name)}/config")
        first = told["input"][0]
        return {**told, "input": (first["name"], first["data_type"], first["dims"])}

    async def infer(self, ask: Ask) -> Answer:
        body, json_bytes = body_of(ask)
        headers = {JSON_LENGTH: str(json_bytes)} if ask.raw else {}
        path = f"{path_of(ask.model, ask.version)}/infer"
        return read(await self.http.post(path, content=body, headers=headers))

    async def statistics(self, name: str) -> tuple[int, int]:
        told = await self._json("GET", f"{path_of(name)}/stats")
        stats = told["model_stats"][0]["inference_stats"]
        return stats["success"]["count"], stats["fail"]["count"]

    async def index(self) -> list[tuple[str, str]]:
        rows = await self._json("POST", "/v2/repository/index")
        return [(row["name"], row["state"]) for row in rows]

    async def load(self, name: str) -> None:
        _refuse(await self.http.post(f"/v2/repository/models/{name}/load"))

    async def unload(self, name: str) -> None:
        _refuse(await self.http.post(f"/v2/repository/models/{name}/unload"))

    async def _json(self, method: str, path: str) -> Any:
        response = await self.http.request(method, path)
        _refuse(response)
        return response.json()


def path_of(name: str, version: str = "") -> str:
    """The path of a model."""
    return f"/v2/models/{name}" + (f"/versions/{version}" if version else "")


def body_of(ask: Ask) -> tuple[bytes, int]:
    """The body of a request, and the length of its JSON."""
    inputs, binary = [], []
    for tensor in ask.inputs:
        row: Json = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": dict(tensor.parameters),
        }
        if ask.raw:
            binary.append(packed(tensor))
            row["parameters"]["binary_data_size"] = len(binary[-1])
        else:
            row["data"] = list(tensor.data)
        inputs.append(row)
    said: Json = {"id": ask.id, "parameters": dict(ask.parameters), "inputs": inputs}
    if ask.raw:
        said["parameters"]["binary_data_output"] = True
    if ask.outputs:
        said["outputs"] = [{"name": name} for name in ask.outputs]
    text = json.dumps(said).encode()
    return text + b"".join(binary), len(text)


def read(response: httpx.Response) -> Answer:
    """The answer, with its binary data where it has some.

    Raises:
        Refused: it is none.
    """
    _refuse(response)
    length = int(response.headers.get(JSON_LENGTH, len(response.content)))
    told, rest = json.loads(response.content[:length]), response.content[length:]
    outputs = {}
    for row in told["outputs"]:
        size = row.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = row["data"]
        else:
            values, rest = list(struct.unpack(f"<{size // 4}f", rest[:size])), rest[size:]
        outputs[row["name"]] = (row["datatype"], row["shape"], values)
    if rest:
        raise Refused("malformed", f"{len(rest)} bytes belong to no output")
    return Answer(
        told.get("id", ""),
        told["model_name"],
        told["model_version"],
        outputs,
        told.get("parameters", {}),
    )


def _refuse(response: httpx.Response) -> None:
    if response.status_code != 200:
        kind = OF_STATUS.get(response.status_code, str(response.status_code))
        raise Refused(kind, response.text)
