"""The detector of metrics: the novelty of every metric's samples.

The alert level rises with the logarithm of the number of metrics, so that the number of false
alerts does not grow with it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from penstock.telemetry.detection.incidents import Contribution, Finding
from penstock.telemetry.detection.novelty import ALERT_LEVEL_NATS, WARM_UP_SAMPLES, NoveltyStream
from penstock.telemetry.window.series import SeriesKey
from penstock.telemetry.window.settled_traces import SettledRequest

MAX_STREAMS = 20_000


class MetricDetector:
    """See `Detector`. It holds 7 kB for each metric.

    Args:
        max_streams: beyond it, the metric without a sample for longest is forgotten.
    """

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._max_streams = max_streams
        self._streams: OrderedDict[SeriesKey, NoveltyStream] = OrderedDict()
        self._alerts = 0

    def observe_sample(self, series: SeriesKey, unix_s: float, value: float) -> Sequence[Finding]:
        """Score a sample; a value that is not a finite number is ignored."""
        if not math.isfinite(value):
            return ()
        stream = self._stream(series)
        low, high = stream.bounds
        expected = stream.mean
        score = stream.score(value)
        if not stream.should_alert(score, ALERT_LEVEL_NATS + math.log(len(self._streams))):
            return ()
        self._alerts += 1
        labels = " ".join(text for _, text in series.labels)
        subject = f"{series.metric} {labels}".strip()
        return (
            Finding(
                series.service,
                subject,
                "metric",
                unix_s,
                severity=score / math.log(10.0),
                text=(
                    f"{subject} is {value:.4g}; it was {expected:.4g} of late and between "
                    f"{low:.4g} and {high:.4g} before"
                ),
                contributions=(Contribution(series.metric, 1.0, value, expected),),
            ),
        )

    def observe_request(self, request: SettledRequest) -> Sequence[Finding]:
        """Nothing: this detector looks at metrics only."""
        return ()

    def metrics(self) -> Mapping[str, float]:
        """Metrics watched, those past their warm-up, alerts so far."""
        ready = sum(stream.samples > WARM_UP_SAMPLES for stream in self._streams.values())
        return {
            "streams": len(self._streams),
            "streams_ready": ready,
            "stream_alerts": self._alerts,
        }

    def _stream(self, series: SeriesKey) -> NoveltyStream:
        stream = self._streams.get(series)
        if stream is None:
            stream = self._streams[series] = NoveltyStream()
            if len(self._streams) > self._max_streams:
                self._streams.popitem(last=False)
        else:
            self._streams.move_to_end(series)
        return stream
