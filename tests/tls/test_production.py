"""The production profile refuses to start without protection; no secret leaves by side ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from penstock.cache.settings import CacheSettings
from penstock.router.settings import RouterSettings
from penstock.service.protection import missing_protection
from penstock.service.settings import BadConfig, ServiceSettings, load_section, load_settings
from penstock.service.tls_files import BadTlsFiles, TlsFiles, TlsSource

from tests.tls.conftest import Certificates

SECRET = "a-secret-that-nobody-should-see"


def test_development_starts_without_anything() -> None:
    assert missing_protection(ServiceSettings()) == []


@pytest.mark.threat("a production service without TLS")
def test_production_needs_tls_or_a_word(certificates: Certificates) -> None:
    (problem,) = missing_protection(ServiceSettings(profile="production"))
    assert "PENSTOCK_ALLOW_PLAINTEXT" in problem
    certificates.issue("cache")
    folder = certificates.folder / "cache"
    assert missing_protection(ServiceSettings(profile="production", tls_dir=folder)) == []
    allowed = ServiceSettings(profile="production", allow_plaintext=True)
    assert missing_protection(allowed) == []


@pytest.mark.threat("one token that is root everywhere")
def test_production_needs_a_word_for_one_token() -> None:
    settings = ServiceSettings(profile="production", allow_plaintext=True, internal_token=SECRET)
    (problem,) = missing_protection(settings)
    assert "PENSTOCK_ALLOW_SHARED_TOKEN" in problem and SECRET not in problem


@pytest.mark.threat("a production router without limits")
def test_production_needs_a_limiter_or_a_word() -> None:
    router = RouterSettings(profile="production", allow_plaintext=True)
    (problem,) = missing_protection(router)
    assert "PENSTOCK_ALLOW_NO_LIMITS" in problem


@pytest.mark.threat("keys of cached answers without a secret of their own")
def test_production_needs_a_secret_for_the_cache() -> None:
    cache = CacheSettings(profile="production", allow_plaintext=True)
    (problem,) = missing_protection(cache)
    assert "PENSTOCK_CACHE_SECRET" in problem


@pytest.mark.threat("plaintext by half a configuration")
def test_a_certificate_without_its_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TLS_CERT", str(tmp_path / "tls.crt"))
    with pytest.raises(BadConfig, match="belong together"):
        load_settings(ServiceSettings)


@pytest.mark.threat("plaintext where the certificate is missing")
def test_a_missing_certificate_stops_the_start(tmp_path: Path) -> None:
    settings = ServiceSettings(tls_dir=tmp_path)
    with pytest.raises(BadConfig, match="cannot be read"):
        _ = settings.tls


@pytest.mark.threat("a file that is no certificate: a device, a folder, a large file")
def test_what_is_no_certificate_is_refused_by_name(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (2 << 20))
    for path in (large, tmp_path):
        with pytest.raises(BadTlsFiles, match=str(path)):
            TlsSource(TlsFiles(authorities=path))


@pytest.mark.threat("secrets in an error: a private key")
def test_a_bad_key_is_named_and_not_shown(tmp_path: Path, certificates: Certificates) -> None:
    files = certificates.issue("cache")
    assert files.key is not None
    files.key.write_text(SECRET)
    with pytest.raises(BadTlsFiles) as caught:
        TlsSource(files)
    assert SECRET not in str(caught.value)


@pytest.mark.threat("secrets in a log line: settings and material")
def test_settings_and_material_show_no_secret(certificates: Certificates) -> None:
    settings = ServiceSettings(internal_token=SECRET)
    assert SECRET not in repr(settings)
    assert "PRIVATE" not in repr(certificates.source("cache").current())


@pytest.mark.threat("YAML bomb in the configuration")
def test_aliases_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    levels = ['a0: &a0 ["lol"]']
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file = tmp_path / "penstock.yaml"
    file.write_text("limits:\n" + "\n".join(f"  {level}" for level in levels))
    with pytest.raises(BadConfig, match="aliases stand for more than"):
        load_section(file, "limits", ServiceSettings)


@pytest.mark.threat("code in the configuration")
def test_a_tag_that_would_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text('limits: !!python/object/apply:os.system ["true"]')
    with pytest.raises(BadConfig, match="is not YAML"):
        load_section(file, "limits", ServiceSettings)


@pytest.mark.threat("secrets in a core dump")
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_a_process_forbids_dumps_of_its_memory() -> None:
    script = (
        "import ctypes, resource; from penstock.service.protection import forbid_dumps; "
        "forbid_dumps(); print(resource.getrlimit(resource.RLIMIT_CORE)[0], "
        "ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "0"]
