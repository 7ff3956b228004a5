"""onnxruntime-genai through its C interface, which computes without Python's global lock.

The package's Python classes hold that lock while they compute: 30 ms a token of a model of 135M
parameters, seconds for a long prompt. Meanwhile no other thread of the process runs, so nothing is
sent, answered or cancelled. ctypes releases the lock around each call. Of the interface
(https://github.com/microsoft/onnxruntime-genai/blob/main/src/ort_genai_c.h) only what a decoder
needs is here.

The interface says that it is not safe for several threads, so calls take turns under a lock of the
process. Answers of several threads grow side by side, a step each.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from penstock.onnx.encoder import Floats

PROMPT_STEP_TOKENS = 64
"""Tokens of a prompt that one call computes: between two of them others take their turn. Larger
steps are not faster.
"""
FLOAT32 = 1
"""The number of the element type in the interface."""
_Handle = ctypes.c_void_p
_turn = threading.Lock()


class LibraryError(Exception):
    """What the library says it cannot do."""


class Model:
    """A loaded model; freed with its last reference."""

    def __init__(self, folder: Path, session_options: Mapping[str, Any]) -> None:
        """Load the model of `folder/genai_config.json`.

        Raises:
            ImportError: onnxruntime-genai is not installed.
            LibraryError: the library cannot load it.
        """
        config = _Owned("Config", "OgaCreateConfig", str(folder).encode())
        overlay = {"model": {"decoder": {"session_options": dict(session_options)}}}
        _call("OgaConfigOverlay", config.handle, json.dumps(overlay).encode())
        self._model = _Owned("Model", "OgaCreateModelFromConfig", config.handle)

    def generator(self, search: Mapping[str, float | bool]) -> Generator:
        """A generator with search options by their names in `genai_config.json`.

        Raises:
            LibraryError: an option is unknown or outside its range.
        """
        parameters = _Owned("GeneratorParams", "OgaCreateGeneratorParams", self._model.handle)
        for name, value in search.items():
            if isinstance(value, bool):
                argument: Any = ctypes.c_bool(value)
                _call("OgaGeneratorParamsSetSearchBool", parameters.handle, name.encode(), argument)
            else:
                argument = ctypes.c_double(value)
                _call(
                    "OgaGeneratorParamsSetSearchNumber", parameters.handle, name.encode(), argument
                )
        return Generator(
            _Owned("Generator", "OgaCreateGenerator", self._model.handle, parameters.handle)
        )


class Generator:
    """One answer in the making, with its key-value cache; freed with its last reference.

    Every method raises LibraryError where the library refuses.
    """

    def __init__(self, generator: _Owned) -> None:
        self._generator = generator

    def append(self, tokens: Sequence[int]) -> None:
        """Compute tokens that are given."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        count = ctypes.c_size_t(len(tokens))
        _call("OgaGenerator_AppendTokens", self._generator.handle, ids, count)

    def next_token(self) -> int:
        """Choose the next token and compute it."""
        _call("OgaGenerator_GenerateNextToken", self._generator.handle)
        tokens, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        arguments = (ctypes.byref(tokens), ctypes.byref(count))
        _call("OgaGenerator_GetNextTokens", self._generator.handle, *arguments)
        return int(tokens[0])

    def logits(self) -> Floats:
        """The logits after the last token."""
        tensor = _Owned("Tensor", "OgaGenerator_GetLogits", self._generator.handle)
        kind, rank, data = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_void_p()
        _call("OgaTensorGetType", tensor.handle, ctypes.byref(kind))
        if kind.value != FLOAT32:
            raise LibraryError(f"the logits are of element type {kind.value}, not float32")
        _call("OgaTensorGetShapeRank", tensor.handle, ctypes.byref(rank))
        shape = (ctypes.c_int64 * rank.value)()
        _call("OgaTensorGetShape", tensor.handle, shape, rank)
        _call("OgaTensorGetData", tensor.handle, ctypes.byref(data))
        numbers = (ctypes.c_float * math.prod(shape)).from_address(data.value or 0)
        return np.array(numbers, dtype=np.float32)


class _Owned:
    """An object of the library that this process must destroy."""

    def __init__(self, kind: str, create: str, *arguments: Any) -> None:
        self.handle = _Handle()
        _call(create, *arguments, ctypes.byref(self.handle))
        weakref.finalize(self, _destroy, kind, self.handle)


def _destroy(kind: str, handle: _Handle) -> None:
    with _turn:
        getattr(_library(), f"OgaDestroy{kind}")(handle)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the interface, which returns nothing or an error to be freed."""
    library = _library()
    function = getattr(library, name)
    function.restype = _Handle
    with _turn:
        if not (result := function(*arguments)):
            return
        error = str(library.OgaResultGetError(_Handle(result)).decode(errors="replace"))
        library.OgaDestroyResult(_Handle(result))
    raise LibraryError(error)


@functools.cache
def _library() -> ctypes.CDLL:
    import onnxruntime_genai  # also finds the onnxruntime that the library needs

    folder = Path(onnxruntime_genai.__file__).parent
    names = ("libonnxruntime-genai.so", "libonnxruntime-genai.dylib", "onnxruntime-genai.dll")
    library = ctypes.CDLL(str(next(folder / name for name in names if (folder / name).exists())))
    library.OgaResultGetError.restype = ctypes.c_char_p
    return library
