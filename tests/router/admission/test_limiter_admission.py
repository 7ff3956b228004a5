"""Admission of one call: holds for what is open-ended, ceilings, and what is refused for good."""

from __future__ import annotations

import pytest
from penstock.limiter.output_estimates import MIN_SAMPLES
from penstock.router.admission.limiter_admission import EXTEND_TOKENS
from penstock.router.requests.resolved import JobTry
from penstock.router.stages import Admitted, Spent
from penstock.rpc.errors import Fault
from penstock.rpc.reasons import Reason
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED, GENERATE
from penstock.testkit.eventually import eventually

from .conftest import CHAT, OPEN_CHAT, SHORT_TEXT, StartLimited, budget, call, receipt, request

PRICE_OF_CHAT = 40 * 1 + 100 * 2


async def test_a_conversation_draws_on_a_lease_as_any_call(start_limited: StartLimited) -> None:
    limited = start_limited(budget("microusd", 1_000_000))
    for _ in range(50):
        await limited.settle(await limited.admit(CHAT), receipt(30, paid=77))
    assert "Reserve" not in limited.peer.calls
    assert len(limited.peer.calls) < 20
    await limited.admission.close()
    assert await limited.books() == (50 * 77, 0)
    await limited.assert_books_balance()


async def test_a_conversation_under_a_rule_that_expects_holds_for_itself(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("microusd", 10_000, holds="expected"))
    done, failed, cut = [await limited.admit(CHAT) for _ in range(3)]
    assert await limited.books() == (0, 3 * PRICE_OF_CHAT)
    await limited.settle(done, receipt(30, paid=77))
    await limited.settle(failed)
    await limited.settle(cut, spent=Spent("chat", 20, 15))
    assert await limited.books() == (77 + 20 * 1 + 15 * 2, 0)


async def test_what_a_call_may_say_is_expected_by_its_task_and_the_model_that_it_asked_for(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 1_000_000, holds="expected"))
    automatic, named, other = (
        request(GENERATE, "chat", CHAT.estimate, model=model)
        for model in ("auto", "chat", "x" * 500)
    )
    for asked, tokens in ((automatic, 100), (named, 25)):
        for _ in range(MIN_SAMPLES):
            await limited.settle(await limited.admit(asked), receipt(tokens))
    committed, _ = await limited.books()
    for asked, expected in ((automatic, 100), (named, 25), (other, 100)):
        admitted = await limited.admit(asked)
        assert await limited.books() == (committed, expected)
        await limited.settle(admitted)


async def test_a_length_that_was_left_open_is_what_the_budget_affords(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("microusd", 640, adaptive=False))
    admitted = await limited.admit(OPEN_CHAT)
    assert admitted.max_output_tokens == (640 - 40 - 1) // 2
    with pytest.raises(Fault, match="limit b is spent"):
        await limited.admit(CHAT)


async def test_a_length_that_was_left_open_is_at_most_the_models(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("microusd", 100_000))
    assert (await limited.admit(OPEN_CHAT)).max_output_tokens == 500
    assert (await limited.admit(CHAT)).max_output_tokens == 0, "the caller's own length holds"


async def test_a_stream_that_says_more_than_was_held_is_extended_or_ended(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 700, holds="expected", adaptive=False))
    admitted = await limited.admit(CHAT)
    await limited.admission.extend(admitted, 100)
    assert "Extend" not in limited.peer.calls
    await limited.admission.extend(admitted, 101)
    assert await limited.books() == (0, 140 + EXTEND_TOKENS)
    await limited.admission.extend(admitted, 100 + EXTEND_TOKENS)
    assert limited.peer.calls.count("Extend") == 1
    with pytest.raises(Fault, match="limit b"):
        await limited.admission.extend(admitted, 1_000)


async def test_what_a_stream_says_beyond_its_hold_is_held_at_the_price_of_output(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("microusd", 100_000, holds="expected", adaptive=False))
    admitted = await limited.admit(CHAT)
    _, held = await limited.books()
    await limited.admission.extend(admitted, 101)
    assert await limited.books() == (0, held + 2 * EXTEND_TOKENS)  # 2 micro-dollars a token


async def test_a_stream_from_a_lease_draws_more_of_it_as_it_goes_on(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 1_000_000))
    admitted = await limited.admit(CHAT)
    await limited.admission.extend(admitted, 2_000)
    await limited.admission.extend(Admitted(), 10_000)
    assert "Reserve" not in limited.peer.calls
    await limited.settle(admitted, receipt(2_040))
    await limited.admission.close()
    assert await limited.books() == (2_040, 0)


async def test_what_a_lease_cannot_cover_of_a_long_answer_is_held_beside_it(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 1_500, adaptive=False))
    admitted = await limited.admit(CHAT)
    for said in (101, 400, 700, 1_000):
        await limited.admission.extend(admitted, said)
    assert "Reserve" in limited.peer.calls
    with pytest.raises(Fault, match="is spent"):
        await limited.admission.extend(admitted, 1_500)
    await limited.settle(admitted, receipt(1_100))
    await limited.admission.close()
    assert await limited.books() == (1_100, 0)
    await limited.assert_books_balance()


async def test_a_running_stream_goes_on_without_the_limiter_and_is_settled_in_full(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 1_000_000))
    admitted = await limited.admit(CHAT)
    limited.peer.is_cut_off = True
    await limited.admission.extend(admitted, 20_000)
    limited.peer.is_cut_off = False
    await limited.settle(admitted, receipt(20_040))
    await limited.admission.close()
    assert await limited.books() == (20_040, 0)


async def test_every_try_of_a_job_holds_under_one_id_and_the_job_is_charged_once(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    first, second = (SHORT_TEXT._replace(job=JobTry("j1", fence)) for fence in (1, 2))
    stalled = await limited.admit(first)
    taken_over = await limited.admit(second)
    assert await limited.books("mini") == (0, 50)
    await limited.settle(taken_over, receipt(12))
    await limited.settle(stalled, receipt(45))
    assert await limited.books("mini") == (12, 0)
    assert set(limited.peer.calls) == {"Reserve", "Commit"}
    with pytest.raises(Fault) as refused:
        await limited.admit(first)
    assert refused.value.reason is Reason.SUPERSEDED


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (CHAT, Reason.NEVER_FITS),
        (request(GENERATE, "unheard", Estimate(1, 5, 5, 5)), Reason.NO_PRICE),
    ],
)
async def test_what_never_fits_and_what_has_no_price_are_refused_for_good(
    start_limited: StartLimited, asked: object, reason: Reason
) -> None:
    limited = start_limited(budget("microusd", 100))
    with pytest.raises(Fault) as refused:
        await limited.admit(asked)  # type: ignore[arg-type]
    assert refused.value.reason is reason
    assert not refused.value.consequences.later
    assert await limited.books() == (0, 0)


async def test_a_callers_own_ceiling_is_kept_before_anybody_is_asked(
    start_limited: StartLimited,
) -> None:
    limited = start_limited()
    below, enough = (
        request(GENERATE, "chat", CHAT.estimate, max_cost_microusd=ceiling)
        for ceiling in (PRICE_OF_CHAT - 1, PRICE_OF_CHAT)
    )
    with pytest.raises(Fault, match="this call may cost 240 micro-dollars") as refused:
        await limited.admit(below)
    assert refused.value.reason is Reason.COST_CEILING
    with pytest.raises(Fault, match="this call may cost 240 micro-dollars"):
        limited.admission.admit_now(call(), below)
    assert limited.peer.calls == []
    await limited.admit(enough)


async def test_a_model_without_a_price_costs_nothing_under_any_ceiling(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    await limited.admit(request(EMBED, "mini", SHORT_TEXT.estimate, max_cost_microusd=0))


async def test_a_hold_of_which_nobody_knows_whether_it_was_taken_is_given_back(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000, holds="expected"))
    await limited.settle(await limited.admit(CHAT))
    limited.peer.is_cut_off, limited.peer.calls = True, []
    with pytest.raises(Fault):
        await limited.admit(CHAT)
    limited.peer.is_cut_off = False

    async def released() -> None:
        await limited.clock.advance(0.1)
        assert limited.peer.calls[:2] == ["Reserve", "Release"]

    await eventually(released, every_s=0)
    assert await limited.books() == (0, 0)


async def test_a_lease_of_which_nobody_knows_whether_it_was_granted_is_given_back(
    start_limited: StartLimited,
) -> None:
    limited = start_limited(budget("tokens", 100_000))
    limited.peer.loses_answers = True
    with pytest.raises(Fault):
        await limited.admit(SHORT_TEXT)
    assert (await limited.books("mini"))[1] > 0
    limited.peer.loses_answers = False

    async def returned() -> None:
        await limited.clock.advance(0.1)
        assert await limited.books("mini") == (0, 0)

    await eventually(returned, every_s=0)
    assert "ReturnLease" in limited.peer.calls
