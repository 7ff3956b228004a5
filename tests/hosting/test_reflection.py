"""Reflection in both versions: what is listed can be described, each version by itself."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from penstock.api.kserve import inference_pb2
from penstock.rpc.peers.stream import open_channel
from penstock.testkit.server import serving

VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
NAME = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


async def ask(address: str, version: str, **request: str) -> pb.ServerReflectionResponse:
    async with open_channel(address) as channel:
        method = channel.stream_stream(
            f"/{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        async for response in method(iter([pb.ServerReflectionRequest(**request)])):
            told: pb.ServerReflectionResponse = response
            return told
    raise AssertionError("nothing was answered")


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_listed_service_is_described(version: str) -> None:
    async with serving([], foreign_names=[NAME]) as server:
        listed = await ask(server.address, version, list_services="")
        names = {each.name for each in listed.list_services_response.service}
        assert names >= {NAME, *(f"{each}.ServerReflection" for each in VERSIONS)}
        for name in names:
            told = await ask(server.address, version, file_containing_symbol=name)
            (packed,) = told.file_descriptor_response.file_descriptor_proto[:1]
            file = FileDescriptorProto.FromString(packed)
            assert name.rpartition(".")[2] in {service.name for service in file.service}
            assert name.startswith(f"{file.package}.")
