"""The detector of metric streams: novelty of each, at a level that rises with the log of how many
streams are watched. Plain.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.telemetry.detection.findings import Contribution, Finding
from penstock.telemetry.detection.novelty import ALERT_LEVEL_NATS, WARM_UP_SAMPLES, NoveltyStream
from penstock.telemetry.window.series_key import SeriesKey
from penstock.telemetry.window.settled import SettledRequest

MAX_STREAMS = 20_000


class MetricDetector:
    """See `Detector`.

    Holds 7 kB for each stream; the stream least recently heard of is forgotten when there are too
    many.
    """

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._streams: OrderedDict[SeriesKey, NoveltyStream] = OrderedDict()
        self._alerts = 0

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Score a sample; a value that is no finite number says nothing."""
        if not math.isfinite(value):
            return ()
        stream = self._streams.get(series)
        if stream is None:
            stream = self._streams[series] = NoveltyStream()
            if len(self._streams) > self._most:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(series)
        low, high = stream.bounds
        expected = stream.mean
        score = stream.score(value)
        if not stream.alert(score, ALERT_LEVEL_NATS + math.log(len(self._streams))):
            return ()
        self._alerts += 1
        return (_finding(series, unix_s, value, score, (low, expected, high)),)

    def observe_request(self, seen: SettledRequest) -> Sequence[Finding]:
        """Nothing: requests are another detector's."""
        return ()

    def state(self) -> Mapping[str, float]:
        """Streams watched, those past their warm-up, alerts so far."""
        ready = sum(stream.seen > WARM_UP_SAMPLES for stream in self._streams.values())
        return {
            "streams": len(self._streams),
            "streams_ready": ready,
            "stream_alerts": self._alerts,
        }


def _finding(
    series: SeriesKey, unix_s: float, value: float, score: float, usual: tuple[float, float, float]
) -> Finding:
    low, expected, high = usual
    labels = " ".join(text for _, text in series.labels)
    subject = f"{series.metric} {labels}".strip()
    text = (
        f"{subject} is {value:.4g}; it was {expected:.4g} of late and between {low:.4g} and "
        f"{high:.4g} before"
    )
    contribution = Contribution(series.metric, 1.0, value, expected)
    return Finding(
        series.service, subject, "metric", unix_s, score / math.log(10.0), text, (contribution,)
    )
