"""Certificates of a development authority, made for each test."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest
from penstock.cli.dev_authority import HERE, Authority
from penstock.service.tls_files import TlsFiles, TlsSource


@dataclass
class Certificates:
    """Issues certificates below a folder."""

    folder: Path
    authority: Authority

    def issue(self, name: str, *others: str, valid_days: int = 90) -> TlsFiles:
        """The files of a service on this machine; issuing a name again renews it."""
        names = (name, *(others or HERE))
        now = datetime.datetime.now(datetime.UTC)
        return self.authority.issue(self.folder / name, names, now, valid_days)

    def source(self, name: str, *others: str, valid_days: int = 90) -> TlsSource:
        return TlsSource(self.issue(name, *others, valid_days=valid_days))


def certificates_below(folder: Path) -> Certificates:
    return Certificates(folder, Authority.new(datetime.datetime.now(datetime.UTC)))


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return certificates_below(tmp_path / "ours")


@pytest.fixture
def foreign(tmp_path: Path) -> Certificates:
    """Certificates of an authority that nobody believes."""
    return certificates_below(tmp_path / "foreign")
