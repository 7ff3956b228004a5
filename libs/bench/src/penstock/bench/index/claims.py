"""What is claimed of systems like this one, and the figures that answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from penstock.bench.index.pages import Page


class Verdict(Enum):
    """What a measured value says of a claim."""

    BEATEN = "beaten"
    MET = "met"
    UNCERTAIN = "reached, interval does not clear it"
    NO_INTERVAL = "reached, no interval"
    SHORT = "short"
    OPEN = "not measured"


@dataclass(frozen=True)
class Answer:
    """A measured value in a claim's terms, and the ends of its interval where it has one."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.5g}"
        if self.low == self.high:
            return f"{self.value:.5g} (exact)"
        return f"{self.value:.5g} [{self.low:.5g}, {self.high:.5g}]"


@dataclass(frozen=True)
class Claim:
    """A claim and the figure that answers it.

    Attributes:
        text: what is claimed.
        at_least: the lowest value of the claim.
        at_most: its highest value; above it the claim is beaten.
        page: the benchmark that measures it; empty where none does.
        figure: the figure's name on the page.
        is_cost: the claim is the share that is saved, the figure the share that is left.
        caveat: what a reader has to know of the figure, or why it falls short.
    """

    text: str
    at_least: float
    at_most: float
    page: str
    figure: str
    caveat: str
    is_cost: bool = False

    @property
    def where(self) -> str:
        """The figure's page and name, for people."""
        return f"`{self.figure}` of [{self.page}]({self.page}.md)" if self.page else "–"

    def answer(self, pages: Mapping[str, Page]) -> Answer | None:
        """What was measured, in the claim's own terms; None where nothing was."""
        page = pages.get(self.page)
        figure = page.figures.get(self.figure) if page is not None else None
        if figure is None:
            return None
        if not self.is_cost:
            return Answer(figure.value, figure.low, figure.high)
        low, high = (None if end is None else 1 - end for end in (figure.high, figure.low))
        return Answer(1 - figure.value, low, high)

    def verdict(self, answer: Answer | None) -> Verdict:
        """What the answer says; the lower end of its interval decides."""
        if answer is None:
            return Verdict.OPEN
        if answer.value < self.at_least:
            return Verdict.SHORT
        if answer.low is None:
            return Verdict.NO_INTERVAL
        if answer.low < self.at_least:
            return Verdict.UNCERTAIN
        return Verdict.BEATEN if answer.low > self.at_most else Verdict.MET


CLAIMS = (
    Claim(
        "quantisation makes models 4 times smaller",
        4,
        4,
        "quantization",
        "size_ratio",
        "a scale for each channel, and norms that stay FP32, take the last percent",
    ),
    Claim(
        "quantisation makes models 2 times faster",
        2,
        2,
        "quantization",
        "speedup_vs_onnx_fp32",
        "one thread, short texts, against the same graph in FP32",
    ),
    Claim(
        "quantised models keep 95–98 % of their accuracy",
        0.95,
        0.98,
        "quantization",
        "accuracy_kept",
        "banking77; on a sample of CLINC150 `accuracy_kept_clinc150`; the rest is within the noise",
    ),
    Claim(
        "caching and deduplication save 40–60 % of calls",
        0.4,
        0.6,
        "coalescing",
        "redundant_cut",
        "repeats drawn by Zipf; agents' conversations repeat far less (tau-bench: 0.3 % exact)",
    ),
    Claim(
        "a semantic cache saves 40–60 % of calls",
        0.4,
        0.6,
        "semantic-cache",
        "call_cut_01",
        "closed answers (intents) at an error bound of 1 %; free text is exact only by default",
    ),
    Claim(
        "leaving out tools that a request does not need cuts 80 % of their tokens",
        0.8,
        0.8,
        "tool-pruning",
        "schema_tokens_cut",
        "opt-in, for single requests; conversations with a provider that caches prefixes save "
        "nothing",
    ),
    Claim(
        "the right tool is among those kept for 99 % of requests",
        0.99,
        0.99,
        "tool-pruning",
        "right_tool_kept",
        "by requests; by functions, whose requests are alike, at least 0.974; BFCL's own answer, "
        "mostly in English; what a model answers was not measured",
    ),
    Claim(
        "dynamic batching brings 3–4 times the throughput",
        3,
        4,
        "batching",
        "vs_unbatched_rps",
        "a CPU takes for a batch nearly what its rows take one by one; 3.2 times against padded "
        "batches first come, first served; a GPU has not been measured",
    ),
    Claim(
        "priority cuts the latency of urgent work by 60–75 %",
        0.6,
        0.75,
        "priority",
        "high_mean_cut_vs_fifo",
        "simulated at twice the capacity, with the batcher's own queue",
    ),
    Claim(
        "priority among real processes, the same",
        0.6,
        0.75,
        "priority",
        "real_high_p50_vs_low",
        "medians of the classes of one run",
        is_cost=True,
    ),
    Claim(
        "adaptive limits cut overruns of budgets by 85 %",
        0.85,
        0.85,
        "limiter",
        "overrun_cut",
        "simulated, against limits on the number of calls; against a budget that counts what was "
        "spent `overrun_cut_vs_spent`",
    ),
    Claim(
        "99 % availability under adaptive limits",
        0.99,
        1,
        "limiter",
        "availability",
        "of critical calls, a tenth of the load; `low_served` says what the others pay",
    ),
    Claim(
        "pooled connections cut latency by 30–40 %",
        0.3,
        0.4,
        "pooling",
        "latency_cut",
        "against a connection a call, 10 ms from the upstream; the page has the curve by distance",
    ),
    Claim(
        "robust anomaly detection raises 67 % fewer false alarms",
        0.67,
        0.67,
        "telemetry",
        "false_positive_cut_vs_threshold",
        "against thresholds; the level was chosen on files that are scored too, and "
        "`nab_left_group_out` scores levels that were not",
    ),
    Claim(
        "prediction over-provisions 45 % less",
        0.45,
        0.45,
        "scaling",
        "over_provision_cut_vs_best_reactive",
        "against the best reactive rule, simulated; against the HPA `over_provision_cut_vs_hpa`; "
        "on series that nothing was chosen with `untouched_cut_vs_best_reactive`",
    ),
    Claim(
        "spot instances make it 72 % cheaper",
        0.72,
        0.72,
        "spot",
        "cost_vs_on_demand",
        "a generated market; on-demand stand-ins for 99.5 % availability cost the rest",
        is_cost=True,
    ),
    Claim(
        "99.5 % availability on spot instances",
        0.995,
        1,
        "spot",
        "availability",
        "simulated on a generated market",
    ),
    Claim(
        "routing by score brings 41 % more throughput",
        1.41,
        1.41,
        "routing",
        "throughput_vs_round_robin",
        "unequal instances, simulated; on equal ones `throughput_equal_fleet`; against least "
        "requests `throughput_vs_least_requests`",
    ),
    Claim(
        "all together cost 65–72 % less",
        0.65,
        0.72,
        "agent-replay",
        "w5_cost_cut_thirds",
        "of a mix of a third each of recorded conversations, closed answers and embeddings, "
        "against direct calls with the provider's prefix cache; `w5_share_for_65` says which mix "
        "would do",
    ),
    Claim(
        "all together take up to 80 % less time",
        0.8,
        0.8,
        "agent-replay",
        "w5_latency_cut_thirds",
        "mean of the same mix; the provider's times are simulated",
    ),
)
