"""Fifty wrong versions of the rules that guard money and tenancy; a test must fail for each.

A mutant is a replacement of a text that stands once in a file. It is applied to a copy of the
file's package, which shadows the package for one run of the tests concerned; the working tree is
not touched. A mutant is killed when the tests fail, and alive when they pass.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.bench.fault_suite.logs import MUTANTS as LOG
from penstock.bench.fault_suite.logs import append

TIMEOUT_S = 600.0
TESTS_FAILED = 1
"""Exit status of pytest when tests failed; others mean that it could not run them."""

HOLDS = (
    "tests/limiter/test_exact_ledger.py",
    "tests/limiter/test_holds_and_leases.py",
    "tests/limiter/test_script_against_reference.py",  # last: what fails there is shrunk for long
)
LEDGER = "services/limiter/src/penstock/limiter/ledger/"
ADMISSION = ("tests/router/admission",)
ROUTER = "services/router/src/penstock/router/"
JOBS = ("tests/router/jobs", "tests/router/api/test_job_service.py")
KEYS = ("tests/tasks/test_answer_keys.py", "tests/cache/test_exact_lookup.py")
SHARING = (
    "tests/router/caching",
    "tests/cache/test_exact_lookup.py",
    "tests/cache/test_storing.py",
)
TASKS = "libs/tasks/src/penstock/tasks/"


@dataclass(frozen=True)
class Mutant:
    """One wrong version: what is replaced by what in a file, and the tests that must notice."""

    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name for the log."""
        return f"{Path(self.file).name}: {self.before.strip()} → {self.after.strip() or 'nothing'}"


def _of(file: str, tests: tuple[str, ...], changes: Iterable[tuple[str, str]]) -> Iterator[Mutant]:
    return (Mutant(file, before, after, tests) for before, after in changes)


MUTANTS: tuple[Mutant, ...] = (
    *_of(
        LEDGER + "counters.lua",
        HOLDS,
        [
            ("amount > 0 and amount > unspent then", "amount > 0 and amount > unspent + 1 then"),
            (
                "limit - hash_number(key, 'c') - hash_number(key, 'h')\n  local protected",
                "limit - hash_number(key, 'c')\n  local protected",
            ),
            ("if amount > limit then\n    return NEVER", "if false then\n    return NEVER"),
            ("amount > 0 and amount > available then", "amount > 0 and amount > unspent then"),
            (
                "if amount > 0 and amount * interval_us > room_us",
                "if amount * interval_us > limit * 2e9",
            ),
            ("return limit and tonumber(limit) or counter[LIMIT]", "return counter[LIMIT]"),
            ("'w', int(window), 'c', 0, 'h', 0, 'a', 0)", "'w', int(window), 'h', 0, 'a', 0)"),
            (
                "if now_ms >= counter[WINDOW_END_MS] then",
                "if now_ms > counter[WINDOW_END_MS] + 1e12 then",
            ),
            (
                "local first_kept = present - ROLLING_STEPS",
                "local first_kept = present - ROLLING_STEPS + 30",
            ),
            ("unspent * 10 < limit", "unspent * 10 < 0"),
        ],
    ),
    *_of(
        LEDGER + "reservations.lua",
        HOLDS,
        [
            ("local repeated = fence == 0 and repeated_grant(id)", "local repeated = nil"),
            ("verdict ~= ALLOWED and counter[IS_SHADOW] == 0 and not refused", "false"),
            (
                "if counter[DIMENSION] == MICROUSD and reservation.is_unpriced then",
                "if false then",
            ),
            (
                "grant[d] = math.min(grant[d], share)\n",
                "\n",
            ),
            ("if reservation.is_lease and tight then", "if false then"),
            ("if redis.call('EXISTS', PREFIX .. 'drained') == 1 then", "if false then"),
            (
                "book_entry(counter[KEY], hold.windows[i], 0, amount)",
                "book_entry(counter[KEY], hold.windows[i], 0, 0)",
            ),
            ("if earlier.fence > reservation.fence then", "if false then"),
            ("if earlier.is_open then\n    holds.free", "if false then\n    holds.free"),
            ("reservation[cost] = less_spent(reservation[cost], earlier.spent)", ""),
            ("if missing > 0 and counter[IS_SHADOW] == 0 then", "if false then"),
            ("if hold and hold.fence ~= fence then", "if false then"),
            ("hold.maximum[d] = math.max(hold.maximum[d], maximum[d])", ""),
        ],
    ),
    *_of(
        LEDGER + "holds.lua",
        HOLDS,
        [
            (
                "limits), amount)\n  elseif is_in_window(hold, i, counter) then",
                "limits), amount)\n  else",
            ),
            (
                "book(hold, i, counter, minimum, -held_amount(hold, counter))",
                "book(hold, i, counter, 0, -held_amount(hold, counter))",
            ),
            ("redis.call('ZREM', HOLDS, id)\n    local hold = read(id)", "local hold = read(id)"),
            ("hold.spent[d] = hold.spent[d] + hold.minimum[d]", ""),
        ],
    ),
    *_of(
        LEDGER + "settlements.lua",
        HOLDS,
        [
            ("local difference = spent[d] - hold.spent[d]", "local difference = spent[d]"),
            (
                "local held = hold.is_open and holds.held_amount(hold, counter) or 0",
                "local held = holds.held_amount(hold, counter)",
            ),
            ("if hold.fence > fence then", "if false then"),
            ("if #path > 0 or is_nothing then", "if #path > 0 then"),
            ("redis.call('ZREM', HOLDS, id)", ""),
        ],
    ),
    *_of(
        LEDGER + "leases.lua",
        HOLDS,
        [
            ("fresh[d] = math.max(spent[d] - lease.spent[d], 0)", "fresh[d] = spent[d]"),
            ("lease.maximum[d] = lease.maximum[d] - from_lease[d]", ""),
            ("math.min(wanted, math.max(math.floor(available * renewal.share), 0))", "wanted"),
            ("growth = math.min(growth, 0)", ""),
        ],
    ),
    *_of(
        ROUTER + "admission/leases.py",
        ADMISSION,
        [
            (
                "if lease is None or self._clock.monotonic() >= lease.good_until_s:",
                "if lease is None:",
            ),
            (
                "            self._return(request.lease_id, path, NOTHING)\n",
                "",
            ),
        ],
    ),
    *_of(
        ROUTER + "admission/lease.py",
        ADMISSION,
        [
            ("self.left[part] += amounts[part] - spent[part]", "self.left[part] += amounts[part]"),
            ("self.left[part] -= amounts[part]", "pass"),
            ("self.left[part] -= settled + self.in_flight[part]", "pass"),
        ],
    ),
    *_of(
        ROUTER + "admission/limiter_admission.py",
        ADMISSION,
        [
            ("return self._leases.put_back(ticket.lease, ticket.amounts)", "return None"),
            ("check_ceiling(request.options, cost)", "pass"),
            ("ticket.beyond_lease = _sum(ticket.beyond_lease, more)", "ticket.beyond_lease = more"),
        ],
    ),
    *_of(
        ROUTER + "jobs/job_store.py",
        JOBS,
        [('if not row or row[b"organisation"].decode() != organisation:', "if not row:")],
    ),
    *_of(
        ROUTER + "keys.py",
        ("tests/router/api/test_keys.py", "tests/router/requests"),
        [("return min(asked,", "return max(asked,")],
    ),
    *_of(
        ROUTER + "caching/near_cache.py",
        SHARING,
        [('scope = f"{tenant_of(principal)}\\x1e', 'scope = f"\\x1e')],
    ),
    *_of(
        TASKS + "answer_keys.py",
        KEYS,
        [
            (
                "keyed_hash(salt, tenant.encode(), namespace.encode()",
                "keyed_hash(salt, namespace.encode()",
            ),
            (
                "tenant.encode(), namespace.encode(), model.encode()",
                "tenant.encode(), namespace.encode()",
            ),
            ('digest.update(len(part).to_bytes(8, "big"))', "pass"),
            (
                "(principal.organisation, principal.team, *sorted(principal.tags))",
                "(principal.organisation,)",
            ),
            ("hashlib.blake2b(key=secret[:64], ", "hashlib.blake2b("),
        ],
    ),
)


def run_mutants(log: Path, mutants: Iterable[Mutant] = MUTANTS) -> int:
    """Run mutants and append a line for each to a log; returns how many are alive."""
    alive = 0
    for mutant in mutants:
        is_alive = _is_alive(mutant)
        alive += is_alive
        append(log, {"mutant": mutant.name, "alive": is_alive})
        print(f"{'ALIVE ' if is_alive else 'killed'} {mutant.name}", file=sys.stderr, flush=True)
    return alive


def _is_alive(mutant: Mutant) -> bool:
    """Whether the tests pass with the mutant. Raises RuntimeError if they cannot be run."""
    with tempfile.TemporaryDirectory(prefix="penstock-mutant-") as folder:
        sources = Path(*Path(mutant.file).parts[: Path(mutant.file).parts.index("src") + 1])
        copy = Path(folder) / "src"
        shutil.copytree(sources, copy)
        file = copy / Path(mutant.file).relative_to(sources)
        text = file.read_text()
        if text.count(mutant.before) != 1:
            raise RuntimeError(f"{mutant.name}: the text stands {text.count(mutant.before)} times")
        file.write_text(text.replace(mutant.before, mutant.after))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *mutant.tests],
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    if done.returncode not in (0, TESTS_FAILED):
        raise RuntimeError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout!r}")
    return done.returncode == 0


def main() -> int:
    """Run all mutants, or those whose name holds a text; 1 if one is alive."""
    parser = argparse.ArgumentParser(prog="python -m penstock.bench.fault_suite.mutants")
    parser.add_argument("--only", default="", help="a text in the mutants' names")
    parser.add_argument("--log", type=Path, default=LOG, help="file to which lines are appended")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.name]
    return int(run_mutants(given.log, chosen) > 0)


if __name__ == "__main__":
    sys.exit(main())
