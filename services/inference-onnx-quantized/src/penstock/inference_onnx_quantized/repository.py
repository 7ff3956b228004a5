"""Models on disk and in memory: versioned folders, load, swap, unload, a memory budget.

Who runs them lives in `adapters`.

Loads come one at a time, from any thread; what is served changes in one step under a lock, so that
a request sees the old model or the new one and never neither. Ownership: a caller that holds a
Loaded keeps it usable after it was replaced; the repository only stops handing it out.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.onnx.card import CARD, BadModel, ModelCard, parse_card
from penstock.onnx.decoder import Decoder
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import BadInput
from penstock.rpc.errors import invalid, not_found

log = logging.getLogger(__name__)

Model = TextModel | Decoder
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory."""

    model: Model
    memory_bytes: int

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def encoder(self) -> TextModel:
        """The model that takes tensors.

        Raises:
            Fault: INVALID_ARGUMENT: it is a decoder, which takes conversations.
        """
        if isinstance(self.model, Decoder):
            raise invalid("model", f"{self.card.name} generates text; it takes no tensors")
        return self.model


class ModelRepository:
    """All models below one folder. Blocking: callers run `load` in a thread."""

    def __init__(self, folder: Path, budget_bytes: int, load: Callable[[Path], Model]) -> None:
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._load = load
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._loading, self._changing = threading.Lock(), threading.Lock()
        self.failed: dict[str, str] = {}

    def names(self) -> list[str]:
        """Every model on disk."""
        if not self._folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self._folder.iterdir()
            if path.is_dir() and _SAFE.fullmatch(path.name)
        )

    def loaded(self) -> Sequence[LoadedModel]:
        """Every model in memory, the least recently used first."""
        with self._changing:
            return list(self._loaded.values())

    def get(self, name: str) -> LoadedModel:
        """A model in memory.

        Raises:
            Fault: NOT_FOUND naming `model`.
        """
        with self._changing:
            found = self._loaded.get(name)
            if found is None:
                raise not_found(
                    "model",
                    f"{name!r} is not loaded here; loaded are {', '.join(self._loaded) or 'none'}",
                )
            self._loaded.move_to_end(name)
            return found

    def load(self, name: str, version: str = "") -> LoadedModel:
        """Read, check and warm up a version, then make it the serving one.

        The old one serves until then and stays if this fails.

        Raises:
            Fault: INVALID_ARGUMENT or NOT_FOUND for a name or version that is not in the
                repository.
            BadModel: its files cannot be used, or it needs more memory than the budget.
        """
        folder = self._version_folder(name, version)
        with self._loading:
            try:
                made = self._read(name, folder)
            except BadModel as error:
                self.failed[name] = str(error)
                raise
            with self._changing:
                self.failed.pop(name, None)
                self._loaded[name] = made
                self._loaded.move_to_end(name)
                self._evict(name)
        return made

    def _read(self, name: str, folder: Path) -> LoadedModel:
        """The budget is asked before a byte is loaded, of the sizes that the card vouches for."""
        size = sum(file.size_bytes for file in parse_card(folder).files.values())
        if size > self._budget_bytes:
            raise BadModel(
                f"{name}: needs {size:,} bytes; the memory budget is {self._budget_bytes:,}"
            )
        model = self._load(folder)
        try:
            model.warm_up()
        except BadInput as error:
            raise BadModel(f"{name}: cannot be warmed up: {error}") from None
        named = model.card.model_copy(
            update={"name": name, "version": folder.name}
        )  # a folder may have been copied
        return LoadedModel(replace(model, card=named), size)

    def unload(self, name: str) -> LoadedModel:
        """Stop handing a model out; raises as `get` does."""
        found = self.get(name)
        with self._changing:
            self._loaded.pop(name, None)
        return found

    def _evict(self, newest: str) -> None:
        while sum(item.memory_bytes for item in self._loaded.values()) > self._budget_bytes:
            name = next(iter(self._loaded))
            if name == newest:
                return
            del self._loaded[name]
            log.warning(
                "model %s was unloaded: least recently used, and the memory budget is %d bytes",
                name,
                self._budget_bytes,
            )

    def _version_folder(self, name: str, version: str) -> Path:
        for field, value in (("name", name), ("version", version)):
            if value and not _SAFE.fullmatch(value):
                raise invalid(
                    field,
                    "may hold letters, digits, dots, dashes and underscores, and begins with "
                    "a letter or digit",
                )
        folder = self._folder / name
        if not name or not folder.is_dir():
            raise not_found("name", f"{name!r} is not in the repository {self._folder}")
        versions = sorted(
            (path.name for path in folder.iterdir() if (path / CARD).is_file()), key=_natural
        )
        if not versions or (version and version not in versions):
            raise not_found(
                "version",
                f"{version or 'any'} of {name} is not in the repository; there are "
                f"{', '.join(versions) or 'none'}",
            )
        return folder / (version or versions[-1])


def _natural(version: str) -> list[tuple[int, int | str]]:
    return [
        (0, int(part)) if part.isdigit() else (1, part)
        for part in re.split(r"(\d+)", version)
        if part
    ]
