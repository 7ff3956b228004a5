"""The model repository: versioned folders on disk, models in memory within a budget.

Loads come one at a time, from any thread. What is served changes in one step under a lock, so that
a request sees the old model or the new one and never neither. Ownership: a caller that holds a
LoadedModel may use it after it was replaced; the repository only stops handing it out.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.api.inference.v1 import inference_pb2
from penstock.inference_onnx_quantized.tensors import spec_to_proto
from penstock.onnx.card import CARD, BadModel, ModelCard, parse_card
from penstock.onnx.decoder import Decoder
from penstock.onnx.encoder import TextModel
from penstock.onnx.session import BadInput
from penstock.rpc.errors import invalid, not_found

log = logging.getLogger(__name__)

Model = TextModel | Decoder
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, the bytes that its card says its files have, and the tensors that it takes
    and gives: none for one that takes conversations.
    """

    model: Model
    memory_bytes: int
    inputs: tuple[inference_pb2.TensorSpec, ...] = ()
    outputs: tuple[inference_pb2.TensorSpec, ...] = ()

    @property
    def card(self) -> ModelCard:
        return self.model.card

    @property
    def encoder(self) -> TextModel:
        """The model, where it takes texts or tensors.

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
        self._load_lock = threading.Lock()
        self._change_lock = threading.Lock()
        self.failed: dict[str, str] = {}
        """Why the last load of a model failed, by name."""

    def names(self) -> list[str]:
        """Every model on disk, by name."""
        if not self._folder.is_dir():
            return []
        folders = (path for path in self._folder.iterdir() if path.is_dir())
        return sorted(path.name for path in folders if _SAFE_NAME.fullmatch(path.name))

    def loaded(self) -> Sequence[LoadedModel]:
        """Every model in memory, the least recently used first."""
        with self._change_lock:
            return list(self._loaded.values())

    def get(self, name: str) -> LoadedModel:
        """A model in memory, which is now the most recently used.

        Raises:
            Fault: NOT_FOUND naming `model`.
        """
        with self._change_lock:
            model = self._loaded.get(name)
            if model is None:
                known = ", ".join(self._loaded) or "none"
                raise not_found("model", f"{name!r} is not loaded here; loaded are {known}")
            self._loaded.move_to_end(name)
            return model

    def load(self, name: str, version: str = "") -> LoadedModel:
        """Read, check and warm up a version, then make it the one that serves.

        The earlier version serves until then, and stays if this fails.

        Args:
            version: its folder's name; empty: the highest on disk.

        Raises:
            Fault: INVALID_ARGUMENT or NOT_FOUND for a name or version that is not in the
                repository.
            BadModel: its files cannot be used, or it needs more memory than the budget.
        """
        folder = self._version_folder(name, version)
        with self._load_lock:
            try:
                model = self._read(name, folder)
            except BadModel as error:
                self.failed[name] = str(error)
                raise
            with self._change_lock:
                self.failed.pop(name, None)
                self._loaded[name] = model
                self._loaded.move_to_end(name)
                self._evict(newest=name)
        return model

    def unload(self, name: str) -> LoadedModel:
        """Stop handing a model out.

        Raises:
            Fault: NOT_FOUND naming `model`.
        """
        model = self.get(name)
        with self._change_lock:
            self._loaded.pop(name, None)
        return model

    def _read(self, name: str, folder: Path) -> LoadedModel:
        """Load a model folder, unless its card's sizes exceed the budget."""
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
        # The folder may have been copied, so its own name counts and not the card's.
        card = model.card.model_copy(update={"name": name, "version": folder.name})
        inputs: tuple[inference_pb2.TensorSpec, ...] = ()
        outputs: tuple[inference_pb2.TensorSpec, ...] = ()
        if isinstance(model, TextModel):
            inputs = tuple(map(spec_to_proto, model.session.inputs))
            outputs = tuple(map(spec_to_proto, model.session.outputs))
        return LoadedModel(replace(model, card=card), size, inputs, outputs)

    def _evict(self, newest: str) -> None:
        """Unload the least recently used models until the rest fits into the budget."""
        while sum(model.memory_bytes for model in self._loaded.values()) > self._budget_bytes:
            name = next(iter(self._loaded))
            if name == newest:
                return
            del self._loaded[name]
            log.warning(
                "model %s was unloaded: least recently used, and the memory budget is %d bytes; "
                "requests for it are refused until it is loaded again",
                name,
                self._budget_bytes,
            )

    def _version_folder(self, name: str, version: str) -> Path:
        for field, value in (("name", name), ("version", version)):
            if value and not _SAFE_NAME.fullmatch(value):
                raise invalid(
                    field,
                    "may hold letters, digits, dots, dashes and underscores, and must begin with "
                    "a letter or digit",
                )
        folder = self._folder / name
        if not name or not folder.is_dir():
            raise not_found("name", f"{name!r} is not in the repository {self._folder}")
        names = [path.name for path in folder.iterdir() if (path / CARD).is_file()]
        versions = sorted(names, key=_natural_order)
        if not versions or (version and version not in versions):
            raise not_found(
                "version",
                f"{version or 'any'} of {name} is not in the repository; there are "
                f"{', '.join(versions) or 'none'}",
            )
        return folder / (version or versions[-1])


def _natural_order(version: str) -> list[tuple[int, int | str]]:
    """A sort key by which 10 follows 9."""
    parts = [part for part in re.split(r"(\d+)", version) if part]
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
