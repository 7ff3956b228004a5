"""gRPC's reflection in both versions: `grpc.reflection.v1`, and `v1alpha` for older tools.

Both have the same messages in another package, so version 1 is described as the other one renamed,
and the same servicer answers for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

OLD, NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
FILE = "grpc/reflection/v1/reflection.proto"
SERVICE, METHOD = f"{NEW}.ServerReflection", "ServerReflectionInfo"


def enable(names: Sequence[str], server: grpc.aio.Server) -> None:
    """Let tools list the named services and read their messages; on a server not yet started."""
    _describe_version_1()
    listed = [*names, reflection.SERVICE_NAME, SERVICE]
    reflection.enable_server_reflection(listed, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(listed).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})]
    )


def _describe_version_1() -> None:
    """Add version 1 to the known messages, unless it is there."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(FILE)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name, file.package = FILE, NEW
        for message in file.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(OLD, NEW)
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(OLD, NEW)
            method.output_type = method.output_type.replace(OLD, NEW)
        pool.AddSerializedFile(file.SerializeToString())
