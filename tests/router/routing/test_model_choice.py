"""The choice of a model and the chain of fallbacks behind it."""

from __future__ import annotations

import pytest
from penstock.api.router.v1 import router_pb2 as pb
from penstock.prices.prices import ModelPrice, Prices, PricesSection
from penstock.router.routing.model_choice import MAX_MODELS, Chain, Models
from penstock.router.settings import ModelRoute, RoutesSection
from penstock.service.current import Current
from penstock.service.default_models import CHAT, ENCODER
from penstock.tasks.kind import Estimate
from penstock.tasks.kinds import EMBED, GENERATE

CHEAP = ModelRoute(name="cheap", quality=0.6, max_input_tokens=1_000)
GOOD = ModelRoute(name="good", quality=0.9, capabilities=("tools",))
BEST = ModelRoute(name="best", quality=0.97, capabilities=("tools", "vision"))
ROUTES = RoutesSection(models=(BEST, GOOD, CHEAP), fallbacks={"good": ("best", "good", "cheap")})
PRICES = Prices(
    {
        name: ModelPrice(name=name, input_microusd_per_mtok=price)
        for name, price in (("cheap", 100_000), ("good", 3_000_000), ("best", 9_000_000))
    }
)
SERVING = ("cheap", "good", "best")
SHORT = Estimate(1, 100, 100)


def models(routes: RoutesSection = ROUTES, default_model: str = "default") -> Models:
    return Models(routes, default_model, Current(PRICES))


def chain(known: Models, **options: object) -> Chain:
    """The chain of a short conversation, where all three models are served."""
    return known.chain(pb.CallOptions(**options), GENERATE, SHORT, SERVING)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "options", "serving", "expected"),
    [
        (100, {}, SERVING, ("cheap", "good", "best")),
        (100, {"min_quality": 0.8}, SERVING, ("good", "best")),
        (100, {"required_capabilities": ["vision"]}, SERVING, ("best",)),
        (1_000, {}, SERVING, ("cheap", "good", "best")),
        (1_001, {}, SERVING, ("good", "best")),
        (100, {}, ("best",), ("best",)),
        (100, {"min_quality": 0.99}, SERVING, ("default",)),
    ],
)
def test_auto_takes_the_cheapest_that_is_able_and_good_enough(
    tokens: int, options: dict[str, object], serving: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    asked = pb.CallOptions(model="auto", **options)  # type: ignore[arg-type]
    found = models().chain(asked, GENERATE, Estimate(1, tokens, 100), serving)
    assert found.models == expected
    assert found.reason.startswith("auto: ")


@pytest.mark.parametrize("model", ["", "auto"])
def test_without_a_default_in_the_settings_each_kind_has_the_one_that_comes_with_it(
    model: str,
) -> None:
    known, asked = models(RoutesSection(), default_model=""), pb.CallOptions(model=model)
    assert known.chain(asked, GENERATE, SHORT, SERVING).models == (CHAT,)
    assert known.chain(asked, EMBED, SHORT, SERVING).models == (ENCODER,)


def test_a_model_without_a_price_is_told_from_one_that_is_free() -> None:
    prices = Prices.from_section(PricesSection())
    known = Models(ROUTES, "", Current(prices))
    assert known.described(CHAT) == pb.AvailableModel(name=CHAT, priced=True)
    assert known.described("unknown") == pb.AvailableModel(name="unknown")


def test_auto_says_how_many_models_were_good_enough() -> None:
    assert chain(models(), model="auto", min_quality=0.8).reason == (
        "auto: cheapest of 2 with quality 0.8 or more"
    )
    assert chain(models(), model="auto", min_quality=0.99).reason == (
        "auto: no declared model is able and good enough; the default"
    )


def test_the_least_quality_of_the_configuration_holds_where_the_caller_names_none() -> None:
    known = models(ROUTES.model_copy(update={"min_quality": 0.8}))
    assert chain(known, model="auto").models == ("good", "best")
    assert chain(known, model="auto", min_quality=0.95).models == ("best",)


def test_a_model_declared_for_other_tasks_is_not_able() -> None:
    routes = RoutesSection(models=(ModelRoute(name="cheap", tasks=("embed",)), GOOD))
    assert chain(models(routes), model="auto").models == ("good",)
    embedding = models(routes).chain(pb.CallOptions(model="auto"), EMBED, SHORT, SERVING)
    assert embedding.models[0] == "cheap"


def test_a_named_model_is_first_then_the_callers_fallbacks_then_the_configured() -> None:
    assert chain(models(), model="good", fallback_models=["cheap"]).models == (
        "good",
        "cheap",
        "best",
    )
    assert chain(models(), model="cheap") == Chain(("cheap",))


def test_a_call_that_names_no_model_gets_the_default() -> None:
    assert chain(models()).models == ("default",)


def test_a_chain_names_each_model_once_and_ends() -> None:
    many = [f"m{number}" for number in range(50)]
    found = chain(models(), model="a", fallback_models=["a", "", *many]).models
    assert found == ("a", *many[: MAX_MODELS - 1])


def test_the_callers_fallbacks_are_behind_what_auto_chose() -> None:
    assert chain(models(), model="auto", min_quality=0.95, fallback_models=["x"]).models == (
        "best",
        "x",
    )
    assert chain(models(), model="auto", min_quality=0.99, fallback_models=["x"]).models == (
        "default",
        "x",
    )


def test_verdicts_move_the_quality_and_each_answer_is_judged_once() -> None:
    known = models()
    for number in range(60):
        known.served("acme", f"r{number}", "cheap")
        known.judge("acme", f"r{number}", False)
        known.judge("acme", f"r{number}", False)
    known.judge("acme", "unknown", True)
    assert known.quality("cheap") == pytest.approx(0.6 * 20 / 80)
    assert chain(known, model="auto", min_quality=0.5).models[0] == "good"
    known.served("acme", "right", "cheap")
    known.judge("acme", "right", True)
    assert known.quality("cheap") == pytest.approx((0.6 * 20 + 1) / 81)


def test_routes_that_are_read_again_keep_what_was_judged() -> None:
    known = models()
    known.served("acme", "r", "cheap")
    known.judge("acme", "r", False)
    known.replace(RoutesSection(models=(CHEAP,), cascade_floor=0.7))
    assert known.quality("cheap") == pytest.approx(0.6 * 20 / 21)
    assert (known.quality("good"), known.cascade_floor) == (0.0, 0.7)
