"""What is known of the answers of one scope: centroids, records of right and wrong, a linear
discriminant and a word model. Plain numpy.

LDA: Fisher 1936 with a covariance shrunk towards a ball (after Ledoit and Wolf 2004, its weight a
function of the count). Word model: multinomial naive Bayes over unigrams and bigrams with a
Dirichlet prior on the background frequencies.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
MAX_FITTED_VECTORS = 20_000
"""Latest vectors that the discriminant is fitted on."""
REFIT_EVERY_INSERTS = 250
"""Inserts between two fits of the discriminant."""
TOLERATED, TOLERANT = 1, 10
"""So many contradictions that did not matter, and so many for each that did, before a class is
trusted beyond the gate.
"""
DIRICHLET = 5.0
CLIP_LDA, CLIP_WORDS = 10.0, 8.0


class AnswerClasses:
    """Statistics by answer class (a dense number from 0).

    Grows by inserts; memory is one vector and one table of words a class.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = np.zeros(0, np.int64)
        self.sums = np.zeros((0, width), np.float32)
        self._norms = np.zeros(0, np.float32)
        self.right: list[float] = []
        self.wrong: list[float] = []
        self.suspects: set[int] = set()
        """Classes that an audit or a caller has found wrong, until a call shows one of their
        answers to be right.
        """
        self._kinds: list[dict[str, list[int]]] = []
        """By class and kind of contradiction: how often the class was right all the same, and how
        often not.
        """
        self.words = WordModel()
        self._inserts = 0
        self._vectors: deque[Floats] = deque(maxlen=MAX_FITTED_VECTORS)
        self._labels: deque[int] = deque(maxlen=MAX_FITTED_VECTORS)
        self._weights: Floats | None = None
        self._offsets: Floats | None = None
        self._known: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None = None

    def grow(self, classes: int) -> None:
        """Make room for so many classes."""
        more = classes - len(self.count)
        if more > 0:
            self.count = np.concatenate([self.count, np.zeros(more, np.int64)])
            self.sums = np.concatenate([self.sums, np.zeros((more, self.width), np.float32)])
            self._norms = np.concatenate([self._norms, np.full(more, 1e-9, np.float32)])
            self.right += [0.0] * more
            self.wrong += [0.0] * more
            self._kinds += [{} for _ in range(more)]
            self.words.grow(classes)

    def insert(self, vector: Floats, tokens: Sequence[str], answer: int) -> None:
        """A verified answer of this class."""
        self.grow(answer + 1)
        self.count[answer] += 1
        self.sums[answer] += vector
        self._norms[answer] = max(float(np.linalg.norm(self.sums[answer])), 1e-9)
        self.words.insert(tokens, answer)
        self._vectors.append(vector)
        self._labels.append(answer)
        self._inserts += 1
        if self._inserts % REFIT_EVERY_INSERTS == 0:
            self._fit()

    def record(self, answer: int, right: bool) -> None:
        """A call has shown whether this class would have been the right answer."""
        if right:
            self.right[answer] += 1
            self.suspects.discard(answer)
        else:
            self.wrong[answer] += 1

    def contradicted(self, answer: int, kind: str, right: bool) -> None:
        """A prompt contradicted the class's nearest one in this way; a call has shown whether the
        answer was the class's all the same.
        """
        self._kinds[answer].setdefault(kind, [0, 0])[0 if right else 1] += 1

    def tolerates(self, answer: int, kind: str) -> bool:
        """True once the class has shown that its answer does not depend on this kind of thing."""
        right, wrong = self._kinds[answer].get(kind, (0, 0))
        return right >= TOLERATED and right >= TOLERANT * wrong

    def reliability(self, answer: int) -> float:
        """Log odds of the class's own record."""
        return math.log((self.right[answer] + 2.0) / (self.wrong[answer] + 0.5))

    def centroid(self, vector: Floats, answer: int) -> tuple[float, float]:
        """Cosine to the class's centroid, and its margin over the best other one."""
        cosines = self.sums @ vector / self._norms
        own = float(cosines[answer])
        cosines[answer] = -1.0
        return own, own - float(cosines.max()) if len(cosines) > 1 else 0.02

    def discriminant(self, vector: Floats, answer: int) -> tuple[float, float]:
        """Log odds of the class by the discriminant, and 1 where it is its first choice; both 0
        before the first fit or for a new class.
        """
        if self._weights is None or self._offsets is None or self._known is None:
            return 0.0, 0.0
        place = np.searchsorted(self._known, answer)
        if place >= len(self._known) or self._known[place] != answer:
            return 0.0, 0.0
        scores = (self._weights @ vector + self._offsets) / 2.0
        scores -= scores.max()
        chances = np.exp(scores)
        chance = float(chances[place] / chances.sum())
        odds = math.log(max(chance, 1e-9) / max(1.0 - chance, 1e-9))
        return min(max(odds, -CLIP_LDA), CLIP_LDA), float(scores[place] == 0.0)

    def _fit(self) -> None:
        labels = np.asarray(self._labels)
        known = np.flatnonzero(np.bincount(labels, minlength=len(self.count)) >= 2)
        if len(known) < 2:
            return
        vectors = np.asarray(self._vectors, np.float32)
        keep = np.isin(labels, known)
        x, y = vectors[keep], np.searchsorted(known, labels[keep])
        sizes = np.bincount(y, minlength=len(known)).astype(np.float64)
        sums = np.zeros((len(known), self.width))
        np.add.at(sums, y, x)
        inner = x - (sums / sizes[:, None])[y].astype(np.float32)
        spare = max(len(x) - len(known), 1)
        covariance = (inner.T @ inner).astype(np.float64) / spare
        share = min(0.9, 0.1 + 0.9 * self.width / (self.width + spare))
        covariance = (1 - share) * covariance + share * np.trace(covariance) / self.width * np.eye(
            self.width
        )
        centre = x.mean(axis=0)
        means = (sums + centre) / (sizes + 1.0)[:, None]
        solved = np.linalg.solve(covariance, means.T).T
        self._weights = solved.astype(np.float32)
        self._offsets = (-0.5 * np.einsum("ij,ij->i", solved, means)).astype(np.float32)
        self._known = known.astype(np.int64)


class WordModel:
    """Naive Bayes over words and pairs, with sparse counts: a score costs what the prompt's own
    words have been seen in.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Counter[int]] = {}
        self._background: Counter[str] = Counter()
        self._total = 0
        self._sizes = np.zeros(0, np.float64)

    def grow(self, classes: int) -> None:
        """Make room for so many classes."""
        self._sizes = np.concatenate([self._sizes, np.zeros(classes - len(self._sizes))])

    def insert(self, tokens: Sequence[str], answer: int) -> None:
        """Count a prompt's tokens for its class."""
        for token in tokens:
            self._seen.setdefault(token, Counter())[answer] += 1
        self._background.update(tokens)
        self._total += len(tokens)
        self._sizes[answer] += len(tokens)

    def margin(self, tokens: Sequence[str], answer: int) -> tuple[float, float]:
        """Mean-length-scaled log likelihood of the class less that of the best other one, and its
        sign.
        """
        known = [token for token in tokens if token in self._seen]
        scores = -len(tokens) * np.log(self._sizes + DIRICHLET)
        for token in known:
            frequency = DIRICHLET * self._background[token] / self._total
            for label, count in self._seen[token].items():
                scores[label] += math.log1p(count / frequency)
        if len(scores) < 2:
            return 0.0, 0.0
        own = float(scores[answer])
        scores[answer] = -np.inf
        value = (own - float(scores.max())) / math.sqrt(len(tokens) + 1.0)
        return min(max(value, -CLIP_WORDS), CLIP_WORDS), math.copysign(1.0, value)
