"""Loading a model keeps nothing to be sent: onnxruntime would, in the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_model import write_onnx

RUN = "OnnxSession(Path(sys.argv[1]))"
IMPORTS = {
    "a service": "from penstock.onnx.session import OnnxSession",
    "the factory": "import penstock.models.quantize; from penstock.onnx.session import OnnxSession",
}


def files_after_loading(imports: str, folder: Path, **variables: str) -> list[Path]:
    """What a new process that loads a model leaves in its user's home."""
    home = folder / "home"
    home.mkdir()
    write_onnx(folder / "own.onnx")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **variables}
    code = f"import sys; from pathlib import Path; {imports}; {RUN}"
    command = [sys.executable, "-c", code, str(folder / "own.onnx")]
    subprocess.run(command, env=environment, check=True, timeout=120)
    return [path for path in home.rglob("*onnxruntime*") if path.is_file()]


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_nothing_is_kept_to_be_sent(imports: str, tmp_path: Path) -> None:
    assert files_after_loading(imports, tmp_path) == []


def test_who_wants_to_send_can() -> None:
    """The variable is the user's: Penstock sets it only where it is not set."""
    code = "import os, penstock.onnx.session; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    assert done.stdout.split() == [b"0"]
