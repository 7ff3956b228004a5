"""Failures as they are raised and as they travel: exceptions, item statuses, gRPC statuses."""

from __future__ import annotations

import asyncio
import pickle

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode as Code
from hypothesis import given
from hypothesis import strategies as st
from penstock.api.common.v1 import common_pb2
from penstock.rpc.errors import (
    Fault,
    consequences_of,
    deadline_exceeded,
    denied,
    exhausted,
    failed_precondition,
    from_item_status,
    internal,
    invalid,
    not_found,
    to_fault,
    to_item_status,
    to_rpc_status,
    unauthenticated,
    unavailable,
)
from penstock.rpc.reasons import TABLE, Reason

FAULTS = st.builds(
    Fault,
    st.sampled_from(Reason),
    st.text(max_size=40),
    field=st.text(max_size=20),
    retry_after_s=st.integers(0, 10_000_000).map(lambda milliseconds: milliseconds / 1000),
)
"""Faults whose wait is a whole number of milliseconds, as it travels."""


def parts(fault: Fault) -> tuple[Reason, str, str, float]:
    return fault.reason, fault.message, fault.field, fault.retry_after_s


@pytest.mark.parametrize(
    ("fault", "reason", "message", "field"),
    [
        (invalid("texts", "is empty"), Reason.INVALID_ARGUMENT, "texts: is empty", "texts"),
        (invalid("", "too large"), Reason.INVALID_ARGUMENT, "too large", ""),
        (not_found("id", "no job"), Reason.NOT_FOUND, "id: no job", "id"),
        (not_found("", "no job"), Reason.NOT_FOUND, "no job", ""),
        (failed_precondition("m", "no"), Reason.FAILED_PRECONDITION, "m: no", "m"),
        (failed_precondition("", "no"), Reason.FAILED_PRECONDITION, "no", ""),
        (unauthenticated("who?"), Reason.UNAUTHENTICATED, "who?", ""),
        (denied("no"), Reason.PERMISSION_DENIED, "no", ""),
        (exhausted("full"), Reason.RESOURCE_EXHAUSTED, "full", ""),
        (unavailable("gone"), Reason.UNAVAILABLE, "gone", ""),
        (deadline_exceeded("late"), Reason.DEADLINE_EXCEEDED, "late", ""),
        (internal("ours"), Reason.INTERNAL, "ours", ""),
    ],
)
def test_a_fault_without_a_reason_has_the_general_one_of_its_code(
    fault: Fault, reason: Reason, message: str, field: str
) -> None:
    assert parts(fault) == (reason, message, field, 0.0)
    assert str(fault) == message
    assert fault.code.name == reason.name


@pytest.mark.parametrize(
    "fault",
    [
        invalid("f", "m", Reason.UPSTREAM_REFUSED),
        not_found("f", "m", Reason.NO_MODEL),
        failed_precondition("f", "m", Reason.NO_PRICE),
        denied("m", Reason.DRAINED),
        exhausted("m", reason=Reason.SHED, retry_after_s=2.0),
        unavailable("m", retry_after_s=2.0, reason=Reason.NO_ANSWER),
    ],
    ids=lambda fault: fault.reason.name,
)
def test_a_fault_has_the_code_and_consequences_of_its_reason(fault: Fault) -> None:
    assert fault.code is TABLE[fault.reason].code
    assert fault.consequences is TABLE[fault.reason]


def test_a_wait_is_part_of_what_says_that_there_is_one() -> None:
    assert exhausted("m", reason=Reason.SHED, retry_after_s=2.0).retry_after_s == 2.0
    assert unavailable("m", retry_after_s=2.0).retry_after_s == 2.0


@given(FAULTS)
def test_a_fault_travels_as_an_items_status_and_comes_back(fault: Fault) -> None:
    status = to_item_status(fault)
    assert status.code == fault.code.value[0]
    assert parts(from_item_status(status)) == parts(fault)


@given(FAULTS)
def test_a_fault_crosses_processes(fault: Fault) -> None:
    copy = pickle.loads(pickle.dumps(fault))
    assert type(copy) is Fault
    assert parts(copy) == parts(fault)


def test_a_status_of_a_newer_service_is_taken_for_its_codes_general_reason() -> None:
    newer = common_pb2.ItemStatus(code=Code.UNAVAILABLE.value[0], reason="SOLAR_FLARE", message="m")
    assert parts(from_item_status(newer)) == (Reason.UNAVAILABLE, "m", "", 0.0)
    assert from_item_status(common_pb2.ItemStatus(code=99)).reason is Reason.UNKNOWN


def details(status: status_pb2.Status) -> dict[str, Message]:
    """The details of a status by the name of their type."""
    found: dict[str, Message] = {}
    for detail in status.details:
        kind = getattr(error_details_pb2, detail.TypeName().rpartition(".")[2])
        found[kind.__name__] = kind.FromString(detail.value)
    return found


@given(FAULTS)
def test_a_grpc_status_carries_the_reason_and_what_else_says_something(fault: Fault) -> None:
    status = to_rpc_status(fault)
    found = details(status)
    assert (status.code, status.message) == (fault.code.value[0], fault.message)
    assert found["ErrorInfo"] == error_details_pb2.ErrorInfo(reason=fault.reason, domain="penstock")
    assert ("BadRequest" in found) is bool(fault.field)
    assert ("RetryInfo" in found) is (fault.retry_after_s > 0)


def failed_call(fault: Fault, metadata: bool = True) -> grpc.aio.AioRpcError:
    """A plain call that a service of ours has failed with this fault, as its caller sees it."""
    packed = to_rpc_status(fault).SerializeToString()
    trailing = (("other", "x"), ("grpc-status-details-bin", packed)) if metadata else ()
    return grpc.aio.AioRpcError(
        fault.code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), fault.message
    )


@given(FAULTS)
def test_a_failed_plain_call_tells_the_whole_fault(fault: Fault) -> None:
    reason, message, field, retry_after_s = parts(to_fault(failed_call(fault)))
    assert (reason, message, field) == (fault.reason, fault.message, fault.field)
    assert retry_after_s == pytest.approx(fault.retry_after_s, abs=1e-6)


def test_a_failed_plain_call_without_details_has_its_codes_general_reason() -> None:
    bare = to_fault(
        failed_call(unavailable("gone", retry_after_s=2.0, reason=Reason.NO_ANSWER), metadata=False)
    )
    assert parts(bare) == (Reason.UNAVAILABLE, "gone", "", 0.0)
    mute = grpc.aio.AioRpcError(Code.ABORTED, grpc.aio.Metadata(), grpc.aio.Metadata())
    assert parts(to_fault(mute)) == (Reason.ABORTED, "aborted", "", 0.0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (asyncio.CancelledError(), Reason.CANCELLED),
        (TimeoutError(), Reason.DEADLINE_EXCEEDED),
        (ValueError("secret"), Reason.INTERNAL),
    ],
)
def test_any_exception_becomes_a_fault(error: BaseException, reason: Reason) -> None:
    assert to_fault(error).reason is reason
    assert from_item_status(to_item_status(error)).reason is reason
    assert consequences_of(error) is TABLE[reason]


def test_a_fault_stays_itself() -> None:
    fault = exhausted("full", reason=Reason.QUEUE_FULL)
    assert to_fault(fault) is fault
    assert consequences_of(fault) is TABLE[Reason.QUEUE_FULL]
    assert consequences_of(GeneratorExit()) is TABLE[Reason.CANCELLED]


def test_an_unexpected_errors_text_stays_here_and_is_found_by_its_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = to_fault(ValueError("secret")), to_fault(ValueError("secret"))
    assert "secret" not in first.message
    log_entry = first.message.rpartition(" ")[2]
    assert log_entry in caplog.text
    assert "secret" in caplog.text
    assert first.message != second.message, "each has an id of its own"


def test_what_follows_from_an_unexpected_error_is_looked_up_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert consequences_of(ValueError("secret")) is TABLE[Reason.INTERNAL]
    assert not caplog.records
