"""The table of failures as a specification: what follows from each reason, in every respect.

The rows are written out, not derived, so whoever changes the table changes its expectation too.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from grpc import StatusCode as Code
from penstock.rpc.reasons import TABLE, Charge, Consequences, Reason, Retry, Verdict, reason_of

# Columns: the reason; its gRPC code; where the request may be tried again at once; whether the same
# model only, another or a larger one may serve it; whether a job tries again later; what it says of
# the instance; what is charged beside nothing: what was said, or all that was sent.
EXPECTED = """
reason                code                 retry          model  later  verdict  charge
CANCELLED             CANCELLED            NOWHERE        same   yes    NOTHING  SENT
UNKNOWN               UNKNOWN              NOWHERE        same   no     SICK     SAID
INVALID_ARGUMENT      INVALID_ARGUMENT     NOWHERE        same   no     NOTHING  SAID
DEADLINE_EXCEEDED     DEADLINE_EXCEEDED    IF_REPEATABLE  same   no     NOTHING  SENT
NOT_FOUND             NOT_FOUND            NOWHERE        same   no     NOTHING  SAID
ALREADY_EXISTS        ALREADY_EXISTS       NOWHERE        same   no     NOTHING  SAID
PERMISSION_DENIED     PERMISSION_DENIED    NOWHERE        same   no     NOTHING  SAID
RESOURCE_EXHAUSTED    RESOURCE_EXHAUSTED   NOWHERE        same   yes    NOTHING  SAID
FAILED_PRECONDITION   FAILED_PRECONDITION  NOWHERE        same   no     NOTHING  SAID
ABORTED               ABORTED              NOWHERE        same   no     NOTHING  SAID
OUT_OF_RANGE          OUT_OF_RANGE         NOWHERE        same   no     NOTHING  SAID
UNIMPLEMENTED         UNIMPLEMENTED        NOWHERE        same   no     NOTHING  SAID
INTERNAL              INTERNAL             NOWHERE        same   no     SICK     SAID
UNAVAILABLE           UNAVAILABLE          ELSEWHERE      other  yes    GONE     SAID
DATA_LOSS             DATA_LOSS            NOWHERE        same   no     SICK     SAID
UNAUTHENTICATED       UNAUTHENTICATED      NOWHERE        same   no     NOTHING  SAID
NO_MODEL              NOT_FOUND            NOWHERE        other  yes    NOTHING  SAID
CANNOT_SERVE          FAILED_PRECONDITION  NOWHERE        other  no     NOTHING  SAID
NO_INSTANCE           UNAVAILABLE          NOWHERE        other  yes    NOTHING  SAID
SHED                  RESOURCE_EXHAUSTED   NOWHERE        other  yes    NOTHING  SAID
TRY_TIMED_OUT         DEADLINE_EXCEEDED    IF_REPEATABLE  same   no     SICK     SENT
QUEUE_FULL            RESOURCE_EXHAUSTED   ELSEWHERE      same   yes    NOTHING  SAID
PEER_HUNG             UNAVAILABLE          ELSEWHERE      other  yes    GONE     SAID
NOT_ATTACHED          UNAVAILABLE          HERE           other  yes    NOTHING  SAID
OWNER_GONE            UNAVAILABLE          HERE           other  yes    NOTHING  SAID
INSTANCE_LEAVING      UNAVAILABLE          ELSEWHERE      other  yes    NOTHING  SAID
NO_ANSWER             UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
STREAM_CUT            UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
FOLLOWED_BROKE        UNAVAILABLE          NOWHERE        same   yes    NOTHING  SAID
RATE_LIMITED          RESOURCE_EXHAUSTED   NOWHERE        other  yes    NOTHING  SAID
BUDGET_EXHAUSTED      RESOURCE_EXHAUSTED   NOWHERE        other  no     NOTHING  SAID
NEVER_FITS            FAILED_PRECONDITION  NOWHERE        other  no     NOTHING  SAID
NO_PRICE              FAILED_PRECONDITION  NOWHERE        other  no     NOTHING  SAID
DRAINED               PERMISSION_DENIED    NOWHERE        same   no     NOTHING  SAID
REFUSED               RESOURCE_EXHAUSTED   NOWHERE        other  yes    NOTHING  SAID
LIMITS_UNAVAILABLE    UNAVAILABLE          NOWHERE        same   yes    NOTHING  SAID
COST_CEILING          RESOURCE_EXHAUSTED   NOWHERE        other  no     NOTHING  SAID
STORE_UNAVAILABLE     UNAVAILABLE          NOWHERE        same   yes    NOTHING  SAID
RUN_CANCELLED         CANCELLED            NOWHERE        same   no     NOTHING  SAID
RUN_BUDGET_EXHAUSTED  RESOURCE_EXHAUSTED   NOWHERE        same   no     NOTHING  SAID
RUN_BUDGET_HELD       RESOURCE_EXHAUSTED   NOWHERE        same   yes    NOTHING  SAID
RUN_PAUSED            FAILED_PRECONDITION  NOWHERE        same   no     NOTHING  SAID
RUN_ENDED             FAILED_PRECONDITION  NOWHERE        same   no     NOTHING  SAID
RUN_DEADLINE          DEADLINE_EXCEEDED    NOWHERE        same   no     NOTHING  SAID
NO_STORE              UNAVAILABLE          NOWHERE        same   yes    NOTHING  SAID
ATTEMPTS_EXHAUSTED    UNAVAILABLE          NOWHERE        same   no     NOTHING  SAID
SUPERSEDED            ABORTED              NOWHERE        same   no     NOTHING  SAID
TOO_MANY_JOBS         RESOURCE_EXHAUSTED   NOWHERE        same   no     NOTHING  SAID
TOO_MANY_WATCHERS     RESOURCE_EXHAUSTED   NOWHERE        same   no     NOTHING  SAID
UPSTREAM_REFUSED      INVALID_ARGUMENT     NOWHERE        same   no     NOTHING  SAID
UPSTREAM_TOO_LONG     INVALID_ARGUMENT     NOWHERE        larger no     NOTHING  SAID
UPSTREAM_FILTERED     INVALID_ARGUMENT     NOWHERE        same   no     NOTHING  SAID
UPSTREAM_CREDENTIALS  FAILED_PRECONDITION  ELSEWHERE      other  yes    UNUSABLE SAID
UPSTREAM_BALANCE      FAILED_PRECONDITION  ELSEWHERE      other  yes    UNUSABLE SAID
UPSTREAM_NO_MODEL     FAILED_PRECONDITION  ELSEWHERE      other  yes    UNUSABLE SAID
UPSTREAM_RATE_LIMITED RESOURCE_EXHAUSTED   ELSEWHERE      other  yes    BUSY     SAID
UPSTREAM_OVERLOADED   UNAVAILABLE          ELSEWHERE      other  yes    BUSY     SAID
UPSTREAM_POOL_FULL    UNAVAILABLE          ELSEWHERE      other  yes    GONE     SAID
UPSTREAM_UNREACHABLE  UNAVAILABLE          ELSEWHERE      other  yes    GONE     SAID
UPSTREAM_SILENT       UNAVAILABLE          ELSEWHERE      other  yes    SICK     SENT
UPSTREAM_RESET        UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
UPSTREAM_ERROR        UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
UPSTREAM_MALFORMED    UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
UPSTREAM_TOO_LARGE    UNAVAILABLE          ELSEWHERE      other  yes    SICK     SAID
"""


class Row(NamedTuple):
    """What is expected of one reason."""

    reason: Reason
    expected: Consequences


def _rows() -> list[Row]:
    _, *lines = EXPECTED.split("\n")[1:-1]
    rows = []
    for line in lines:
        reason, code, retry, model, later, verdict, charge = line.split()
        expected = Consequences(
            Code[code],
            Retry[retry],
            other_model=model != "same",
            larger_model=model == "larger",
            later={"no": False, "yes": True}[later],
            verdict=Verdict[verdict],
            charge=Charge[charge],
        )
        rows.append(Row(Reason[reason], expected))
    return rows


ROWS = _rows()
GENERAL = [code for code in Code if code is not Code.OK]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.reason.name)
def test_a_reason_has_these_consequences(row: Row) -> None:
    assert TABLE[row.reason] == row.expected


def test_every_reason_has_a_row_and_an_expectation() -> None:
    assert set(TABLE) == set(Reason) == {row.reason for row in ROWS}
    assert len(ROWS) == len(Reason), "no reason is expected twice"


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_travels_as_its_name_and_is_known_by_it_whatever_the_code(reason: Reason) -> None:
    assert reason.value == reason.name
    assert reason_of(reason.value, TABLE[reason].code) is reason
    assert reason_of(reason.value, Code.UNKNOWN) is reason


@pytest.mark.parametrize("code", GENERAL, ids=lambda code: code.name)
@pytest.mark.parametrize("name", ["", "A_REASON_OF_A_NEWER_SERVICE", "unavailable"])
def test_an_unknown_name_is_taken_for_the_general_reason_of_its_code(name: str, code: Code) -> None:
    general = reason_of(name, code)
    assert general.name == code.name
    assert TABLE[general].code is code


def test_a_failure_with_the_code_of_success_is_unknown() -> None:
    assert reason_of("", Code.OK) is Reason.UNKNOWN


@pytest.mark.parametrize("reason", Reason)
def test_the_table_agrees_with_itself(reason: Reason) -> None:
    row = TABLE[reason]
    if row.verdict is Verdict.GONE:
        assert row.retry is Retry.ELSEWHERE, "whoever did not answer is left for another"
    if row.retry in (Retry.HERE, Retry.ELSEWHERE):
        assert row.later, "what another instance may mend now, a job may try again later"
    if row.retry is Retry.IF_REPEATABLE:
        assert row.charge is Charge.SENT, "the work may have been done, so it is paid for"
    assert row.code is not Code.OK
