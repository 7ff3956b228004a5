"""The list of known variables against the settings of the services, and what is said of others."""

from __future__ import annotations

import os
import subprocess
import sys

from penstock.service.variables import SERVICES, SETTINGS, unknown_variables
from services_file import FILE
from settings_read import variables_read


def test_the_list_is_that_of_the_services_settings() -> None:
    assert set(SERVICES) == set(FILE.services)
    read = {name for service in SERVICES for name in variables_read(service)}
    assert {f"PENSTOCK_{field}".upper() for field in SETTINGS} == read


def test_an_unknown_variable_is_named_with_the_nearest_known_one() -> None:
    names = ["PENSTOCK_LIMTER_ADDRESS", "PENSTOCK_CACHE_LISTEN", "PENSTOCK_LISTEN", "HOME"]
    (problem,) = unknown_variables(names)
    assert problem == (
        "PENSTOCK_LIMTER_ADDRESS: unknown variable; the nearest known one is "
        "PENSTOCK_LIMITER_ADDRESS"
    )


def test_what_kubernetes_sets_for_its_services_is_let_be() -> None:
    names = ["PENSTOCK_ROUTER_SERVICE_HOST", "PENSTOCK_ROUTER_PORT_7070_TCP_ADDR"]
    assert unknown_variables(names) == []


def test_a_service_refuses_an_unknown_variable_beside_a_bad_value() -> None:
    variables = {"PENSTOCK_GRACE_S": "soon", "PENSTOCK_GRACES": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "penstock.batcher"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "PENSTOCK_GRACES: unknown variable" in done.stderr
    assert "PENSTOCK_GRACE_S: Input should be a valid number" in done.stderr
