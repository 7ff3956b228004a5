"""What a quantised model must keep of its original to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.models.evaluate import compare, compare_labelled
from penstock.onnx.encoder import TextModel


@dataclass(frozen=True)
class QualityFloors:
    """The texts by which models are compared, and the lowest value of each figure.

    `labelled`: texts and their labels, both empty where there are none.
    """

    texts: Sequence[str]
    floors: Mapping[str, float]
    labelled: tuple[Sequence[str], Sequence[str]] = ((), ())

    def measure(self, original: TextModel, quantised: TextModel) -> dict[str, float]:
        """Every figure that these texts give."""
        figures = compare(original, quantised, self.texts)
        if self.labelled[0]:
            figures |= compare_labelled(original, quantised, *self.labelled)
        return figures

    def missed(self, figures: Mapping[str, float]) -> list[str]:
        """A sentence for each figure that is below its floor, or not a number."""
        return [
            f"{name} is {figures[name]:.4f}, below the floor {floor}"
            for name, floor in self.floors.items()
            if not figures[name] >= floor
        ]
