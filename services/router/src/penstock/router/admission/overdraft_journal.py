"""What is spent beyond leases, written down on this machine before it is spent.

The ledger counts the whole of a lease as spent when the lease expires, so a router that is killed
loses nothing of a share. What it let calls spend beyond the share, while the limiter was away, only
it knows. Each process writes that into a file of its own and holds a lock on it as long as it
lives; a file whose lock is free was left by a process that was killed, and whoever starts next on
the same home folder settles it.

A line is written when the kernel has it: a killed process loses none, a machine that loses power
those of the last seconds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from penstock.api.common.v1 import common_pb2
from penstock.router.admission.lease import Amounts, Lease, SpendPath
from penstock.rpc.call import Call

REWRITE_BYTES = 1 << 20
"""A file that has grown to this is written anew, with the latest line of each lease."""
LEDGER_REMEMBERS_S = 3_000.0
"""How long the ledger surely remembers a lease after its last renewal."""

log = logging.getLogger(__name__)


class Overdraft(NamedTuple):
    """A lease from which more than its share may have been spent."""

    lease_id: str
    path: SpendPath
    spent: Amounts
    """At most, since the lease was granted."""
    beyond: Amounts
    """How much of that is beyond the share."""
    renewed_unix_s: float
    """When the lease was granted or renewed last."""

    def to_settle(self, unix_s: float) -> tuple[str, Amounts]:
        """The lease and what to return as spent from it; of a lease that the ledger has forgotten,
        which it counted in full, another one with what is beyond.
        """
        if unix_s - self.renewed_unix_s < LEDGER_REMEMBERS_S:
            return self.lease_id, self.spent
        return f"{self.lease_id}+", self.beyond


class OverdraftJournal:
    """The overdrafts of this process, and those of processes that were killed. Owner must `close`
    it.

    Args:
        folder: where the files of all processes of a home folder lie; None: nothing is logged, and
            no overdraft is allowed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: int | None = None
        self._name = f"{secrets.token_hex(8)}.jsonl"
        self._bytes = 0
        self._lines: dict[str, bytes] = {}
        """The latest line of each lease that is overdrawn, by its id."""

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._lines

    def is_ready(self) -> bool:
        """Whether overdrafts can be written down."""
        if self._folder is None:
            return False
        try:
            self._opened(self._folder)
        except OSError as error:
            log.error(
                "no overdraft is allowed, it cannot be logged in %s: %s; name a writable folder "
                "with PENSTOCK_HOME",
                self._folder,
                error.strerror,
            )
            return False
        return True

    def record(self, lease: Lease, renewed_unix_s: float) -> None:
        """Write down what may have been spent from a lease."""
        if self._folder is None:
            return
        line = _to_line(
            Overdraft(lease.id, lease.path, lease.at_most, lease.beyond, renewed_unix_s)
        )
        self._lines[lease.id] = line
        try:
            self._append(self._folder, line)
        except OSError as error:
            log.error("an overdraft of %s is not logged: %s", lease.id, error.strerror)

    def settled(self, lease_id: str) -> None:
        """The ledger knows what was spent from a lease."""
        if self._lines.pop(lease_id, None) is None or self._file is None or self._folder is None:
            return
        try:
            if self._lines:
                self._append(self._folder, json.dumps({"settled": lease_id}).encode() + b"\n")
            else:
                os.ftruncate(self._file, 0)
                self._bytes = 0
        except OSError as error:
            # Whoever finds the file returns the lease once more; the ledger books that once, for
            # as long as it remembers the lease.
            log.error("that %s is settled is not logged: %s", lease_id, error.strerror)

    def left_behind(self) -> Iterator[LeftBehind]:
        """The files of processes that were killed, each locked until it is closed."""
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder is not None else ():
            if path.name == self._name:
                continue
            try:
                file = os.open(path, os.O_RDWR)
            except OSError:
                continue
            if _is_locked(file):
                yield LeftBehind(path, file)
            else:
                os.close(file)

    def close(self) -> None:
        """Let the file go; it stays where something is not settled."""
        if self._file is None or self._folder is None:
            return
        if not self._lines:
            (self._folder / self._name).unlink(missing_ok=True)
        os.close(self._file)
        self._file = None

    def _append(self, folder: Path, line: bytes) -> None:
        os.write(self._opened(folder), line)
        self._bytes += len(line)
        if self._bytes > REWRITE_BYTES + 2 * sum(map(len, self._lines.values())):
            self._rewrite(folder)

    def _opened(self, folder: Path) -> int:
        if self._file is None:
            self._file = self._made(folder, b"")
        return self._file

    def _rewrite(self, folder: Path) -> None:
        lines = b"".join(self._lines.values())
        old, self._file = self._file, self._made(folder, lines)
        self._bytes = len(lines)
        if old is not None:
            os.close(old)

    def _made(self, folder: Path, content: bytes) -> int:
        """This process's file with this content. It has another name until it is locked, so that
        nobody takes it for one that was left behind.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._name
        new = path.with_suffix(".new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)
        if not _is_locked(file):
            raise BlockingIOError(f"{new} is locked by another process")
        os.write(file, content)
        new.replace(path)
        return file


class LeftBehind:
    """The file of a process that was killed. Whoever has it must `close` it."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file

    def overdrafts(self) -> list[Overdraft]:
        """What it had not settled."""
        found: dict[str, Overdraft] = {}
        for line in self._path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut off by a machine that lost power
            if "settled" in row:
                found.pop(row["settled"], None)
            else:
                found[row["lease"]] = _of_row(row)
        return list(found.values())

    def close(self, *, is_settled: bool) -> None:
        """Let it go; removed where all of it is settled."""
        if is_settled:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def _is_locked(file: int) -> bool:
    """Lock a file for this process; False where another one holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _to_line(overdraft: Overdraft) -> bytes:
    path = overdraft.path
    caller = Call(path.principal, path.priority).to_context(0.0).SerializeToString()
    row = {
        "lease": overdraft.lease_id,
        "caller": caller.hex(),
        "model": path.model,
        "spent": overdraft.spent,
        "beyond": overdraft.beyond,
        "renewed": overdraft.renewed_unix_s,
    }
    return json.dumps(row).encode() + b"\n"


def _of_row(row: dict[str, object]) -> Overdraft:
    caller = Call.from_context(
        common_pb2.CallContext.FromString(bytes.fromhex(str(row["caller"]))), 0.0
    )
    return Overdraft(
        str(row["lease"]),
        SpendPath(caller.principal, str(row["model"]), caller.priority),
        _amounts(row["spent"]),
        _amounts(row["beyond"]),
        float(str(row["renewed"])),
    )


def _amounts(value: object) -> Amounts:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list of amounts")
    requests, tokens, microusd = value
    return int(requests), int(tokens), int(microusd)
