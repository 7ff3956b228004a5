"""The two profiles of a process."""

from __future__ import annotations

from typing import Literal, get_args

Profile = Literal["development", "production"]
"""`development`: reflection on, every trace recorded; `production`: a sample of traces, what fails
and what is slow, logs in JSON.
"""
PROFILES: tuple[Profile, ...] = get_args(Profile)
