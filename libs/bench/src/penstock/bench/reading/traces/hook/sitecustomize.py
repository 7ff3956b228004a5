"""Notes which functions a Python process enters, while it is asked to.

Python imports `sitecustomize` at start-up from the folders of `PYTHONPATH`. The benchmark puts
this folder there for the processes of a stack and names a folder of sockets in `READING_SOCKETS`;
without that variable nothing happens. Each process listens on `<folder>/<pid>.sock`: `begin`
clears what was noted and starts noting, `end` stops and answers with one JSON object (see
`Recorder.report`).

The profile function of `sys.setprofile` is installed once for every thread and costs a call for
each event; the services run slower under it, and no figure of this benchmark is a time.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from types import CodeType, FrameType

CONSTRUCTORS = {"__init__", "__new__", "<lambda>"}
"""Code that makes an object; a named tuple's `__new__` is a lambda that takes `_cls`."""


class Recorder:
    """What was entered since `begin`, each once and in order, with the machine's time."""

    def __init__(self) -> None:
        self._on = False
        self._codes: dict[int, tuple[CodeType, int]] = {}
        self._classes: dict[int, tuple[type, int]] = {}

    def begin(self) -> None:
        self._codes, self._classes = {}, {}
        self._on = True

    def end(self) -> None:
        self._on = False

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """The profile function: called for every call and return of its thread."""
        if not self._on or event != "call":
            return
        code = frame.f_code
        if id(code) not in self._codes:
            self._codes[id(code)] = (code, time.monotonic_ns())
        if code.co_name in CONSTRUCTORS and code.co_varnames:
            self._constructed(frame, code)

    def _constructed(self, frame: FrameType, code: CodeType) -> None:
        first = code.co_varnames[0]
        made = frame.f_locals.get(first)
        if first == "_cls" or code.co_name != "<lambda>":
            kind = made if isinstance(made, type) else type(made)
            self._classes.setdefault(id(kind), (kind, time.monotonic_ns()))

    def report(self) -> dict[str, object]:
        """`program`, and rows of file, qualified name, first line (0: a class) and nanoseconds."""
        functions = [
            (code.co_filename, code.co_qualname, code.co_firstlineno, at)
            for code, at in list(self._codes.values())
        ]
        classes = [
            (_file_of(kind), kind.__qualname__, 0, at) for kind, at in list(self._classes.values())
        ]
        return {"program": _program(), "functions": functions, "classes": classes}


def _file_of(kind: type) -> str:
    module = sys.modules.get(kind.__module__)
    return getattr(module, "__file__", None) or ""


def _program() -> str:
    """The module that runs (`python -m MODULE`), else the name of the script."""
    arguments = sys.orig_argv
    return (
        arguments[arguments.index("-m") + 1] if "-m" in arguments else os.path.basename(sys.argv[0])
    )


def _answer(listener: socket.socket, recorder: Recorder) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            if connection.recv(16) == b"begin":
                recorder.begin()
                connection.sendall(b"{}")
            else:
                recorder.end()
                connection.sendall(json.dumps(recorder.report()).encode())


def _install(folder: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, f"{os.getpid()}.sock"))
    listener.listen()
    recorder = Recorder()
    threading.Thread(target=_answer, args=(listener, recorder), daemon=True).start()
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)


if os.environ.get("READING_SOCKETS"):
    _install(os.environ["READING_SOCKETS"])
