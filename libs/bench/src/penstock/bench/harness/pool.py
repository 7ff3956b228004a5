"""Work in virtual time, spread over the cores; nothing that is timed belongs there."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def process_per_core() -> ProcessPoolExecutor:
    """A pool with a fresh process for each core; leave it as a context manager."""
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"))
