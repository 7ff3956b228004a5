"""What one scope has learnt about its answer classes, each of which is one answer under a dense
number from 0.

For each class: its centroid, its record of right and wrong votes, a linear discriminant over
vectors, and a word model. The discriminant is Fisher's (1936), with a covariance shrunk towards a
multiple of the identity (after Ledoit and Wolf 2004, with a weight that depends on the number of
vectors only). The word model is multinomial naive Bayes over unigrams and bigrams, with a Dirichlet
prior on the background frequencies.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
MAX_FITTED_VECTORS = 20_000
"""The discriminant is fitted on the latest vectors only."""
FIT_EVERY_INSERTS = 250
"""Inserts between two fits of the discriminant."""
MIN_TOLERATED = 1
MIN_TOLERATED_PER_FAULT = 10
"""A class is served in spite of a contradiction once it has been right in spite of that kind so
often, and so often for each time it was wrong.
"""
DIRICHLET_WEIGHT = 5.0
MAX_LOG_ODDS = 10.0
MAX_WORD_MARGIN = 8.0
MARGIN_WITHOUT_RIVAL = 0.02
"""Margin of a class over the best other one where there is no other."""
MIN_NORM = 1e-9


class AnswerClasses:
    """Statistics of all answer classes of a scope.

    It grows with each insert; memory is one vector and one table of words a class. `suspects` are
    classes that an audit or a caller has found wrong, until a call shows one of their answers to be
    right, with how often they were found wrong again.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.counts = np.zeros(0, np.int64)
        self.suspects: dict[int, int] = {}
        self.words = WordModel()
        self._sums = np.zeros((0, width), np.float32)
        self._norms = np.zeros(0, np.float32)
        self._right: list[int] = []
        self._wrong: list[int] = []
        self._contradictions: list[dict[str, list[int]]] = []
        """By class and kind of contradiction: how often the class was right, and how often
        wrong.
        """
        self._inserts = 0
        self._vectors: deque[Floats] = deque(maxlen=MAX_FITTED_VECTORS)
        self._vector_classes: deque[int] = deque(maxlen=MAX_FITTED_VECTORS)
        self._weights: Floats | None = None
        self._offsets: Floats | None = None
        self._fitted: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None = None
        """The classes that the discriminant knows, in rising order."""

    def grow(self, class_count: int) -> None:
        """Make room for classes 0 to `class_count` - 1."""
        more = class_count - len(self.counts)
        if more <= 0:
            return
        self.counts = np.concatenate([self.counts, np.zeros(more, np.int64)])
        self._sums = np.concatenate([self._sums, np.zeros((more, self.width), np.float32)])
        self._norms = np.concatenate([self._norms, np.full(more, MIN_NORM, np.float32)])
        self._right += [0] * more
        self._wrong += [0] * more
        self._contradictions += [{} for _ in range(more)]
        self.words.grow(class_count)

    def insert(self, vector: Floats, tokens: Sequence[str], answer_class: int) -> None:
        """Add a prompt whose answer is known to be of this class."""
        self.grow(answer_class + 1)
        self.counts[answer_class] += 1
        self._sums[answer_class] += vector
        norm = float(np.linalg.norm(self._sums[answer_class]))
        self._norms[answer_class] = max(norm, MIN_NORM)
        self.words.insert(tokens, answer_class)
        self._vectors.append(vector)
        self._vector_classes.append(answer_class)
        self._inserts += 1
        if self._inserts % FIT_EVERY_INSERTS == 0:
            self._fit_discriminant()

    def record_vote(self, answer_class: int, is_right: bool) -> None:
        """Note whether a call has shown a vote for this class to be right."""
        if is_right:
            self._right[answer_class] += 1
            self.suspects.pop(answer_class, None)
        else:
            self._wrong[answer_class] += 1

    def suspect(self, answer_class: int) -> None:
        """Note that an audit or a caller has found the class wrong."""
        self.suspects.setdefault(answer_class, 0)

    def find_wrong_again(self, answer_class: int) -> None:
        """Note that a call of a suspect was wrong; nothing where it has been cleared meanwhile."""
        if answer_class in self.suspects:
            self.suspects[answer_class] += 1

    def record_contradiction(self, answer_class: int, kind: str, is_right: bool) -> None:
        """Note whether the class was right in spite of a contradiction of this kind."""
        outcomes = self._contradictions[answer_class].setdefault(kind, [0, 0])
        outcomes[0 if is_right else 1] += 1

    def tolerates(self, answer_class: int, kind: str) -> bool:
        """Whether the class's answer has proved not to depend on contradictions of this kind."""
        right, wrong = self._contradictions[answer_class].get(kind, (0, 0))
        return right >= MIN_TOLERATED and right >= MIN_TOLERATED_PER_FAULT * wrong

    def reliability(self, answer_class: int) -> float:
        """Log odds that a vote for the class is right, by its own record."""
        return math.log((self._right[answer_class] + 2.0) / (self._wrong[answer_class] + 0.5))

    def centroid(self, vector: Floats, answer_class: int) -> tuple[float, float]:
        """The cosine to the class's centroid, and its margin over the best other class."""
        cosines = self._sums @ vector / self._norms
        own = float(cosines[answer_class])
        if len(cosines) == 1:
            return own, MARGIN_WITHOUT_RIVAL
        cosines[answer_class] = -1.0
        return own, own - float(cosines.max())

    def discriminant(self, vector: Floats, answer_class: int) -> tuple[float, float]:
        """Log odds of the class by the discriminant, and 1 where it is its first choice, else 0.

        Both are 0 before the first fit and for a class that was not fitted.
        """
        if self._weights is None or self._offsets is None or self._fitted is None:
            return 0.0, 0.0
        place = np.searchsorted(self._fitted, answer_class)
        if place >= len(self._fitted) or self._fitted[place] != answer_class:
            return 0.0, 0.0
        scores = (self._weights @ vector + self._offsets) / 2.0
        scores -= scores.max()
        likelihoods = np.exp(scores)
        probability = float(likelihoods[place] / likelihoods.sum())
        log_odds = math.log(max(probability, 1e-9) / max(1.0 - probability, 1e-9))
        return min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS), float(scores[place] == 0.0)

    def _fit_discriminant(self) -> None:
        """Fit the discriminant on the classes that have at least two vectors."""
        labels = np.asarray(self._vector_classes)
        fitted = np.flatnonzero(np.bincount(labels, minlength=len(self.counts)) >= 2)
        if len(fitted) < 2:
            return
        is_fitted = np.isin(labels, fitted)
        vectors = np.asarray(self._vectors, np.float32)[is_fitted]
        places = np.searchsorted(fitted, labels[is_fitted])
        sizes = np.bincount(places, minlength=len(fitted)).astype(np.float64)[:, None]
        sums = np.zeros((len(fitted), self.width))
        np.add.at(sums, places, vectors)
        deviations = vectors - (sums / sizes)[places].astype(np.float32)
        covariance = _shrunk_covariance(deviations, max(len(vectors) - len(fitted), 1))
        # Each mean is drawn towards the overall mean with the weight of one vector.
        means = (sums + vectors.mean(axis=0)) / (sizes + 1.0)
        weights = np.linalg.solve(covariance, means.T).T
        self._weights = weights.astype(np.float32)
        self._offsets = (-0.5 * np.einsum("ij,ij->i", weights, means)).astype(np.float32)
        self._fitted = fitted.astype(np.int64)


def _shrunk_covariance(
    deviations: Floats, degrees_of_freedom: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The pooled covariance of deviations from class means, shrunk towards a multiple of the
    identity.
    """
    width = deviations.shape[1]
    covariance = (deviations.T @ deviations).astype(np.float64) / degrees_of_freedom
    shrinkage = min(0.9, 0.1 + 0.9 * width / (width + degrees_of_freedom))
    identity = np.trace(covariance) / width * np.eye(width)
    return np.asarray((1 - shrinkage) * covariance + shrinkage * identity)


class WordModel:
    """Naive Bayes over words and pairs of words.

    Counts are sparse: scoring a prompt costs what the classes that have seen its words cost.
    """

    def __init__(self) -> None:
        self._class_counts: dict[str, Counter[int]] = {}
        """By token: how often each class has seen it."""
        self._background: Counter[str] = Counter()
        self._total = 0
        self._class_sizes = np.zeros(0, np.float64)

    def grow(self, class_count: int) -> None:
        """Make room for classes 0 to `class_count` - 1."""
        more = np.zeros(class_count - len(self._class_sizes))
        self._class_sizes = np.concatenate([self._class_sizes, more])

    def insert(self, tokens: Sequence[str], answer_class: int) -> None:
        """Count a prompt's tokens for its class."""
        for token in tokens:
            self._class_counts.setdefault(token, Counter())[answer_class] += 1
        self._background.update(tokens)
        self._total += len(tokens)
        self._class_sizes[answer_class] += len(tokens)

    def margin(self, tokens: Sequence[str], answer_class: int) -> tuple[float, float]:
        """Log likelihood of the class less that of the best other one, scaled by the prompt's
        length, and the sign of that difference.
        """
        scores = self._log_likelihoods(tokens)
        if len(scores) < 2:
            return 0.0, 0.0
        own = float(scores[answer_class])
        scores[answer_class] = -np.inf
        margin = (own - float(scores.max())) / math.sqrt(len(tokens) + 1.0)
        return min(max(margin, -MAX_WORD_MARGIN), MAX_WORD_MARGIN), math.copysign(1.0, margin)

    def _log_likelihoods(
        self, tokens: Sequence[str]
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        scores = -len(tokens) * np.log(self._class_sizes + DIRICHLET_WEIGHT)
        for token in tokens:
            if token not in self._class_counts:
                continue
            prior = DIRICHLET_WEIGHT * self._background[token] / self._total
            for answer_class, count in self._class_counts[token].items():
                scores[answer_class] += math.log1p(count / prior)
        return np.asarray(scores)
