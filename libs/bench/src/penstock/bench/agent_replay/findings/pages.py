"""Tables, plots and notes of the replay's page. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping

from penstock.bench.agent_replay.findings.costs import (
    calls_saved,
    cost_cut,
    cost_microusd,
    mean_latency_ms,
)
from penstock.bench.agent_replay.findings.figures import ByArm, Plays
from penstock.bench.agent_replay.findings.ledger import savings_of
from penstock.bench.agent_replay.findings.reuse import audit, wrong_answers
from penstock.bench.agent_replay.findings.reuse_ablations import reuse_ablation
from penstock.bench.agent_replay.players.ablations import Ablation
from penstock.bench.agent_replay.players.arms import (
    ARMS,
    CAREFUL,
    DEFAULTS,
    DIRECT,
    LITELLM,
    LITELLM_SEMANTIC,
    OPT_INS,
)
from penstock.bench.agent_replay.players.plays import Play, paired
from penstock.bench.agent_replay.players.workloads import CLOSED, FACTOR, ZIPFS
from penstock.bench.agent_replay.provider.prefix_books import AUTOMATIC, WRITES_COST
from penstock.bench.agent_replay.traffic.closed_answers import first_asked, repeated_share
from penstock.bench.agent_replay.traffic.heads import KNOWN, STYLES
from penstock.bench.harness.intervals import Interval
from penstock.bench.harness.load import quantile
from penstock.bench.harness.options import Options
from penstock.bench.harness.report import Number, Table

Rows = tuple[tuple[str | Number, ...], ...]
FAILURES_SHOWN = 20
BLOCK = 1_000
"""Requests of a row in which the cache is watched while it learns."""
DATA_SETS = (
    "tau-bench",
    "banking77",
    "clinc150",
    "bfcl",
    "xquad",
    "azure-llm-2023",
    "mooncake",
)
NOTES = (
    (
        "A turn is known to the provider by what no stage on the way may change (what users and "
        "the assistant said, identifiers of calls), not by a header: none travels through Penstock "
        "without being part of what its cache compares."
    ),
    (
        "The prefix cache reads in steps of 128 tokens from 1,024 on for five minutes. The sheet "
        "that charges for writing is taken to have its breakpoints where they serve best."
    ),
    (
        "tau-bench's recordings lack the schemas of its tools; here they have names and types "
        "only, so prompts are shorter than the agent's own."
    ),
    (
        "BFCL's requests have no recorded answers and tools that may change something, so Penstock "
        "keeps none of their answers; the dictionary of a careful client does."
    ),
    (
        "`ledger_error` compares the receipts' savings with what the same calls cost more where "
        "they were played directly, at a provider with a prefix cache. Receipts know nothing of "
        "that play: Penstock follows the callers' own prompts and says what they would have cost. "
        "`ledger_error_defaults` leaves the opt-ins out, which save most and so hide errors of the "
        "rest; it has no bar."
    ),
    (
        "Closed answers are asked of an empty cache, which learns as it goes: figures of W3 are of "
        "all requests from the first on, and a longer workload saves more (see the table of "
        "blocks). It has as many requests as the interval of wrong answers needs to be narrower "
        "than the bound."
    ),
    (
        "A quick run plays the tasks for development (number modulo 5 below 2), any other run the "
        "rest."
    ),
)


LITELLM_NOTES = (
    (
        "LiteLLM's proxy has one cache at a time, exact or semantic, and is started anew for each "
        "play. Its semantic cache takes embeddings from the model that comes with Penstock and "
        "reuses at a similarity of 0.8, as its own documentation does. A cache that "
        "reused nothing, not even for equal requests, did not work here and has no figures. "
        "`w3_wrong_…` counts answers that are not the recorded ones."
    ),
)
NO_LITELLM = ("LiteLLM's proxy was not played: `make peers` installs it.",)


def notes(plays: Plays, left_out: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """What to know of the figures, and which arms were not played."""
    others = {LITELLM.name, LITELLM_SEMANTIC.name}
    is_there = any(others & arms.keys() for arms in plays.values())
    missing = tuple(
        f"{arm} was left out of {workload}: {why}." for (workload, arm), why in left_out.items()
    )
    about = LITELLM_NOTES if is_there else () if left_out else NO_LITELLM
    return (*NOTES, *about, *missing)


def context(options: Options, plays: Plays) -> dict[str, object]:
    """The circumstances."""
    calls = {name: len(next(iter(arms.values())).answered) for name, arms in plays.items()}
    return {
        "data": {name: options.source(name) for name in DATA_SETS},
        "calls": calls,
        "clusters": {name: _clusters(arms) for name, arms in plays.items()},
        "factor": FACTOR,
    }


def _clusters(arms: ByArm) -> int:
    play = next(iter(arms.values()))
    return len({run.cluster for run in play.workload.runs})


def tables(plays: Plays, ablations: Mapping[str, Ablation]) -> tuple[Table, ...]:
    """Costs and times by arm, styles of heads, exponents of repeats, techniques."""
    found = [_arms(plays)]
    if any(name.startswith("w2-") for name in plays):
        found.append(_styles(plays))
    if CLOSED in plays:
        found.append(_repeats(plays))
        found.append(learning(plays[CLOSED][DEFAULTS.name]))
        found.append(_reuse_ablated(plays[CLOSED]))
    found += [_ablated(name, ablation) for name, ablation in ablations.items()]
    return (*found, _audited(plays), _savings(plays), *_failures(plays))


def _arms(plays: Plays) -> Table:
    titles = {arm.name: arm.title for arm in ARMS}
    rows: Rows = tuple(
        (
            name,
            titles[arm],
            len(play.answered),
            len(play.noted),
            cost_microusd(play, WRITES_COST) / 1e6,
            cost_microusd(play, AUTOMATIC) / 1e6,
            statistics.median(each.latency_ms for each in play.answered),
            mean_latency_ms(play),
            quantile([each.latency_ms for each in play.answered], 0.99),
            play.cpu_s * 1e3 / len(play.answered),
        )
        for name, arms in plays.items()
        for arm, play in arms.items()
    )
    columns = (
        "workload",
        "arm",
        "calls",
        "reached the provider",
        f"USD ({WRITES_COST.name})",
        f"USD ({AUTOMATIC.name})",
        "p50 ms",
        "mean ms",
        "p99 ms",
        "CPU ms a call",
    )
    return Table("What each arm cost and took (times as divided)", columns, rows)


def _styles(plays: Plays) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for number, style in enumerate(STYLES):
        arms = plays.get(f"w2-{number}")
        if arms is None:
            continue
        direct = arms[DIRECT.name]
        cuts = {name: cost_cut([paired(direct, play)], WRITES_COST) for name, play in arms.items()}
        by_hand = cuts[CAREFUL.name].value if CAREFUL.name in cuts else "–"
        saved = (cuts[DEFAULTS.name].value, cuts[OPT_INS.name].value)
        values = (*saved, _ends(cuts[OPT_INS.name].interval), by_hand)
        rows.append((style, "yes" if style in KNOWN else "no", *values))
    columns = ("head", "matched by a rule", "defaults", "opt-ins", "95 %", "by hand")
    return Table("Share of the cost saved, by style of volatile head", columns, tuple(rows))


def _repeats(plays: Plays) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for name, zipf in ZIPFS.items():
        if name not in plays:
            continue
        whole = plays[name][DEFAULTS.name]
        play = whole.only(whole.whole_runs)
        saved = calls_saved(play)
        exact = repeated_share(play.workload.runs)
        gain = saved.value - exact
        rows.append((zipf, exact, saved.value, _ends(saved.interval), gain))
    columns = ("Zipf exponent", "by a dictionary", "by Penstock", "95 %", "gain")
    return Table("Share of calls saved, closed answers", columns, tuple(rows))


def learning(play: Play, block: int = BLOCK) -> Table:
    """What is saved while the cache learns, in blocks of requests in the order of their starts."""
    runs, wrong = play.workload.runs, Counter(each.run for each in wrong_answers(play))
    rows: list[tuple[str | Number, ...]] = []
    for start in range(0, len(runs), block):
        part = runs[start : start + block]
        served = play.only({run.name for run in part})
        sent_before, sent = (first_asked(runs[:end]).total() for end in (start, start + len(part)))
        exact = 1 - (sent - sent_before) / len(part)
        saved = calls_saved(served).value
        hits = audit([served]).reused["semantic_hit"]
        wrong_hits = sum(wrong[run.name] for run in part)
        rows.append((start + len(part), exact, saved, saved - exact, hits, wrong_hits))
    columns = ("requests", "by a dictionary", "by Penstock", "gain", "semantic hits", "wrong")
    return Table(
        "Closed answers while the cache learns, by block of requests", columns, tuple(rows)
    )


def _ends(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.4f} – {interval.high:.4f}"


def _audited(plays: Plays) -> Table:
    through = [play for arms in plays.values() for play in arms.values() if play.arm.through]
    found = audit(through)
    rows: Rows = tuple(
        (
            technique,
            count,
            found.alike[technique],
            found.wrong[technique],
            _ends(found.bounds(technique)),
        )
        for technique, count in found.reused.items()
    )
    columns = ("technique", "reused", "other words, same details", "wrong", "95 % of wrong")
    return Table("Reused answers beside the recorded ones", columns, rows)


def _ablated(workload: str, ablation: Ablation) -> Table:
    rows: Rows = tuple((name, alone, without) for name, (alone, without) in ablation.items())
    title = f"Share of the input's cost saved by shaping, {workload} (computed, without a wire)"
    return Table(title, ("technique", "alone", "all but it"), rows)


def _reuse_ablated(arms: ByArm) -> Table:
    ablation = reuse_ablation(*paired(arms[DIRECT.name], arms[DEFAULTS.name]))
    rows: Rows = tuple((name, alone, without) for name, (alone, without) in ablation.items())
    title = "Share of calls saved by reuse, closed answers (computed from arrivals and times)"
    return Table(title, ("technique", "alone", "all but it"), rows)


def _failures(plays: Plays) -> tuple[Table, ...]:
    counts = Counter(
        (name, play.arm.title, each.error)
        for name, arms in plays.items()
        for play in arms.values()
        for each in play.errors
    )
    rows = tuple((*what, count) for what, count in counts.most_common(FAILURES_SHOWN))
    return (Table("Failed calls", ("workload", "arm", "error", "calls"), rows),) if rows else ()


def _savings(plays: Plays) -> Table:
    rows: list[tuple[str | Number, ...]] = []
    for name, arms in plays.items():
        direct = arms.get(DIRECT.name)
        for arm in (DEFAULTS, OPT_INS):
            if arm.name not in arms or direct is None:
                continue
            before, play = paired(direct, arms[arm.name])
            less = cost_microusd(before, WRITES_COST) - cost_microusd(play, WRITES_COST)
            said = ", ".join(
                f"{technique} {saved / 1e6:.4f}" for technique, saved in savings_of(play).items()
            )
            rows.append((name, arm.title, less / 1e6, said))
    columns = ("workload", "arm", "USD less than direct", "USD that receipts say, by technique")
    return Table("What receipts say was saved", columns, tuple(rows))
