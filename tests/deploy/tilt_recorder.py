"""Evaluates the Tiltfiles by a Starlark interpreter, with stubs of Tilt's functions that record."""

from __future__ import annotations

from typing import Any

import starlark
import yaml
from services_file import ROOT

STUBS = (
    "local_resource",
    "docker_build",
    "k8s_yaml",
    "kustomize",
    "k8s_resource",
    "probe",
    "tcp_socket_action",
    "exec_action",
    "link",
)


class TiltRecorder:
    """The calls that the Tiltfile makes of Tilt's functions; `k8s` is its only argument."""

    def __init__(self, *, k8s: bool) -> None:
        self._k8s = k8s
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._evaluate("Tiltfile")

    def by_name(self, function: str) -> dict[str, dict[str, Any]]:
        """The keyword arguments of a function's calls by their first argument."""
        return {args[0]: named for name, args, named in self._calls if name == function}

    def first_arguments(self, function: str) -> list[Any]:
        """The first argument of each call of a function."""
        return [args[0] for name, args, _ in self._calls if name == function]

    def _evaluate(self, name: str) -> starlark.FrozenModule:
        module = starlark.Module()
        for function in STUBS:
            module.add_callable(function, self._stub(function))
        module.add_callable("read_yaml", _read_yaml)
        module.add_callable("_define_bool", lambda *args, **named: None)
        module.add_callable("_parse", lambda: {"k8s": self._k8s})
        module["TRIGGER_MODE_MANUAL"] = "manual"
        loader = starlark.FileLoader(lambda path: self._evaluate(path.removeprefix("./")))
        syntax = starlark.parse(name, _text(name), _dialect())
        starlark.eval(module, syntax, starlark.Globals.standard(), loader)
        return module.freeze()

    def _stub(self, function: str) -> Any:
        def record(*args: Any, **named: Any) -> str:
            self._calls.append((function, args, named))
            return function

        return record


def _read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / "tilt" / path).read_text())


def _text(name: str) -> str:
    """A file's text with the attributes of `config` replaced, which the interpreter has not."""
    text = (ROOT / "tilt" / name).read_text()
    text = text.replace("config.define_bool", "_define_bool")
    text = text.replace("config.parse", "_parse")
    return text.replace("config.main_dir", f"'{ROOT}/tilt'")


def _dialect() -> starlark.Dialect:
    dialect = starlark.Dialect.extended()
    dialect.enable_keyword_only_arguments = True
    dialect.enable_top_level_stmt = True
    return dialect
