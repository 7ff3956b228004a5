"""What a burst of large requests took goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import gc, psutil
from penstock.service.large_blocks import give_back_large_blocks

assert give_back_large_blocks()
process = psutil.Process()
before = process.memory_info().rss
kept = []
for _ in range(20):
    large = [bytes(4 << 20) for _ in range(10)]
    kept.append(bytes(1000))  # lies behind the large ones, where these lie in the heap
del large
print(process.memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_large_blocks_are_given_back_though_small_ones_stay() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8 << 20
