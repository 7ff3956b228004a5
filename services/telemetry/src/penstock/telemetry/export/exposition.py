"""Series as Prometheus text: names, labels and numbers that any scraper takes.

OpenTelemetry allows any text as the name of a metric or attribute, Prometheus letters, digits and
underscores. Names are changed as OpenTelemetry's compatibility specification says: what is not
allowed becomes an underscore, attributes that then have the same name are joined with `;`, and
metrics that then have the same name but another type are renamed. No two lines of a page have the
same name and labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.otel import attributes as semconv
from penstock.telemetry.window.histograms import Exponential
from penstock.telemetry.window.series import Exemplar, Series

UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
}
"""Prometheus' word by OpenTelemetry's unit."""

TYPES = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}
"""Prometheus' type by kind of series."""

SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}
"""What is appended to a family's name in its lines, which no other family may use."""

RESERVED_LABELS = frozenset(("job", "instance", "service", "le", "quantile", "otel_duplicate"))
"""Labels with a meaning of their own; an attribute of such a name gets `exported_` before it."""

IDENTIFYING = frozenset(("service.name", "service.namespace", "service.instance.id"))
"""Attributes of a resource that `job` and `instance` are made of."""

MAX_BUCKETS = 40
"""Of a histogram with more bounds, evenly spaced ones are shown, the same at every scrape."""

GRID = tuple(2.0**power for power in range(-20, 21))
"""Upper bounds that exponential histograms are shown with, the same for all of them, so that they
can be added up: a millionth to a million.
"""

EXACT = 2**53
"""Whole numbers below it are written without an exponent; none of them is rounded."""

Labels = Mapping[str, str]
RootExemplars = Mapping[tuple[str, str], Exemplar]
"""A recent trace by (service, root operation)."""


@dataclass(frozen=True)
class Page:
    """What a page is made from.

    Attributes:
        series: all of them.
        writers: (service, instance, attributes of the resource) of those who send them.
        exemplars: recent traces.
        open_metrics: whether it is OpenMetrics, else the older text format without exemplars.
    """

    series: Sequence[Series]
    writers: Sequence[tuple[str, str, Mapping[str, str]]] = ()
    exemplars: RootExemplars = field(default_factory=dict)
    open_metrics: bool = False


def render(page: Page) -> str:
    """The text of a page."""
    jobs = {(service, instance): _job(service, kept) for service, instance, kept in page.writers}
    lines = list(_target_info(page))
    for name, members in sorted(_families(page.series).items()):
        kind = TYPES[members[0].kind]
        family = name.removesuffix("_total") if page.open_metrics and kind == "counter" else name
        lines.append(f"# TYPE {family} {kind}")
        used: set[str] = set()
        for series in members:
            job = jobs.get((series.key.service, series.instance), series.key.service)
            labels = _unused(_labels(series, job), used)
            lines += _lines(name, series, labels, page)
    if page.open_metrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _families(rows: Sequence[Series]) -> dict[str, list[Series]]:
    """Series by the name of their family; those of one metric always share it."""
    by_metric: dict[tuple[str, str, str], list[Series]] = {}
    for series in sorted(rows, key=lambda one: (one.key.metric, one.key, one.instance)):
        by_metric.setdefault((series.key.metric, series.unit, series.kind), []).append(series)
    families: dict[str, list[Series]] = {}
    claimed = {"target", "target_info"}
    for (metric, unit, kind), members in by_metric.items():
        name = _free_name(prometheus_name(metric, unit, kind), kind, families, claimed)
        families.setdefault(name, []).extend(members)
        claimed |= _claims(name, TYPES[kind])
    return families


def _free_name(
    wanted: str, kind: str, families: Mapping[str, list[Series]], claimed: set[str]
) -> str:
    """The name, or one like it that does not clash with a family of another type."""
    if wanted in families and families[wanted][0].kind == kind:
        return wanted
    base = wanted.removesuffix("_total") if kind == "sum" else wanted
    end = wanted[len(base) :]
    number = 1
    name = wanted
    while not claimed.isdisjoint(_claims(name, TYPES[kind])):
        number += 1
        middle = f"_{TYPES[kind]}" if number == 2 else f"_{TYPES[kind]}_{number}"
        name = f"{base}{middle}{end}"
    return name


def _claims(name: str, kind: str) -> set[str]:
    base = name.removesuffix("_total") if kind == "counter" else name
    return {base + suffix for suffix in SUFFIXES[kind]}


def prometheus_name(name: str, unit: str, kind: str) -> str:
    """An OpenTelemetry metric's name as Prometheus writes it.

    The unit, and `_total` for a counter, are appended where the name does not have them.
    """
    plain = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_:]", "_", name)) or "_"
    if plain[0].isdigit():
        plain = f"_{plain}"
    if kind == "sum":
        plain = plain.removesuffix("_total")
    suffix = _unit_suffix(unit, kind)
    if suffix and not plain.endswith(suffix):
        plain = f"{plain}_{suffix}"
    return f"{plain}_total" if kind == "sum" else plain


def _unit_suffix(unit: str, kind: str) -> str:
    """The words of a unit; empty for one that is only an annotation or unknown."""
    if unit == "1":
        return "ratio" if kind == "gauge" else ""
    plain = re.sub(r"\{[^}]*\}", "", unit)
    amount, _, per = plain.partition("/")
    words = UNITS.get(amount, "")
    if per in UNITS:
        return f"{words}_per_{UNITS[per].removesuffix('s')}".lstrip("_")
    return words


def label_name(name: str) -> str:
    """An attribute's name as that of a label."""
    plain = re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_]", "_", name)) or "key"
    if plain[0].isdigit():
        plain = f"key_{plain}"
    return f"exported_{plain}" if plain in RESERVED_LABELS else plain


def joined_labels(attributes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Attributes as labels; values of those that get the same name are joined with `;`."""
    labels: dict[str, str] = {}
    for name, value in sorted(attributes):
        label = label_name(name)
        labels[label] = f"{labels[label]};{value}" if label in labels else value
    return labels


def _labels(series: Series, job: str) -> dict[str, str]:
    own = {"job": job, "service": series.key.service, "instance": series.instance}
    return {**joined_labels(series.key.labels), **own}


def _unused(labels: dict[str, str], used: set[str]) -> dict[str, str]:
    """The labels, with one more where a line of the family has the same ones already."""
    text = _text(labels)
    number = 1
    while text in used:
        number += 1
        labels = {**labels, "otel_duplicate": str(number)}
        text = _text(labels)
    used.add(text)
    return labels


def _job(service: str, resource: Mapping[str, str]) -> str:
    namespace = resource.get("service.namespace", "")
    return f"{namespace}/{service}" if namespace else service


def _target_info(page: Page) -> Iterator[str]:
    """What the resource of each sender says, once, to be joined on `job` and `instance`."""
    kind = "# TYPE target info" if page.open_metrics else "# TYPE target_info gauge"
    used: set[str] = set()
    for service, instance, resource in sorted(page.writers, key=lambda one: one[:2]):
        described = [pair for pair in resource.items() if pair[0] not in IDENTIFYING]
        if not described:
            continue
        if not used:
            yield kind
        own = {"job": _job(service, resource), "instance": instance}
        labels = _unused({**joined_labels(described), **own}, used)
        yield f"target_info{_text(labels)} 1"


def _lines(name: str, series: Series, labels: Labels, page: Page) -> Iterator[str]:
    if series.kind == "histogram":
        return _histogram(name, series, labels, page)
    exemplar = series.exemplars.get(0.0) if page.open_metrics and series.kind == "sum" else None
    mark = _exemplar_text(exemplar) if exemplar else ""
    return iter([f"{name}{_text(labels)} {number_text(series.total)}{mark}"])


def _histogram(name: str, series: Series, labels: Labels, page: Page) -> Iterator[str]:
    totals = series.totals
    if totals is None:
        return
    exemplars = _exemplars_of(series, page) if page.open_metrics else []
    low = -math.inf
    for high, cumulative in cumulative_buckets(series):
        mark = next((one for one in exemplars if low < one.value <= high), None)
        bound = _text({**labels, "le": number_text(high)})
        text = _exemplar_text(mark) if mark is not None else ""
        yield f"{name}_bucket{bound} {cumulative}{text}"
        low = high
    yield f"{name}_sum{_text(labels)} {number_text(totals.total)}"
    yield f"{name}_count{_text(labels)} {totals.count}"


def _exemplars_of(series: Series, page: Page) -> list[Exemplar]:
    """The senders' own exemplars, the latest first, and a recent trace of this root operation."""
    own = sorted(dict(series.exemplars).values(), key=lambda one: -one.unix_s)
    method = dict(series.key.labels).get(semconv.RPC_METHOD, "").rpartition(".")[2]
    recent = page.exemplars.get((series.key.service, method))
    return [*own, recent] if recent is not None else own


def cumulative_buckets(series: Series) -> list[tuple[float, int]]:
    """(upper bound, observations up to it); the last bound is infinity, where all are counted."""
    totals = series.totals
    if totals is None:
        return []
    buckets = totals.buckets
    if isinstance(buckets, Exponential):
        return [*_on_grid(buckets), (math.inf, totals.count)]
    step = math.ceil(len(buckets.bounds) / MAX_BUCKETS) or 1
    shown: list[tuple[float, int]] = []
    cumulative = 0
    for index, bound in enumerate(buckets.bounds):
        cumulative += buckets.counts[index]
        if (len(buckets.bounds) - 1 - index) % step == 0:
            shown.append((bound, cumulative))
    return [*shown, (math.inf, totals.count)]


def _on_grid(buckets: Exponential) -> Iterator[tuple[float, int]]:
    """An exponential histogram at zero and at the bounds of GRID."""
    ranges = buckets.at(min(buckets.scale, 0)).explicit().ranges()
    at_most_zero = sum(count for _, high, count in ranges if high <= 0.0)
    yield 0.0, max(at_most_zero, buckets.zero_count + sum(buckets.negative.values()))
    for bound in GRID:
        yield bound, sum(count for _, high, count in ranges if high <= bound)


def number_text(number: float) -> str:
    """A number in its shortest form that reads back as the same number."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    if isinstance(number, int) or (number.is_integer() and abs(number) < EXACT):
        return str(int(number))
    return repr(number)


def _exemplar_text(exemplar: Exemplar) -> str:
    value = number_text(exemplar.value)
    return f' # {{trace_id="{exemplar.trace_id}"}} {value} {exemplar.unix_s:.3f}'


def _text(labels: Labels) -> str:
    pairs = [f'{name}="{_escape(value)}"' for name, value in labels.items() if value]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    if value.isalnum():
        return value
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return escaped.replace("\x00", "�")
