"""The journal of overdrafts: what a killed process leaves, who takes it, and how large it grows."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from penstock.router.admission.lease import Lease, SpendPath
from penstock.router.admission.overdraft_journal import (
    LEDGER_REMEMBERS_S,
    REWRITE_BYTES,
    Overdraft,
    OverdraftJournal,
)
from penstock.rpc.call import NORMAL, Principal

PATH = SpendPath(Principal("acme", team="shop", key_id="k1", tags=("a", "b")), "mini", NORMAL)
KILLED = """
    import os, signal
    from pathlib import Path
    from penstock.router.admission.lease import Lease, SpendPath
    from penstock.router.admission.overdraft_journal import OverdraftJournal
    from penstock.rpc.call import NORMAL, Principal

    path = SpendPath(
        Principal("acme", team="shop", key_id="k1", tags=("a", "b")), "mini", NORMAL
    )
    journal = OverdraftJournal(Path({folder!r}))
    lease = Lease.granted("lease-1", path, [10, 100, 0], 0.0, 5.0)
    lease.take((11, 130, 0))
    journal.record(lease, 1000.0)
    lease.settle((1, 30, 0), (1, 25, 0))
    journal.record(lease, 1000.0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def overdrawn(lease_id: str = "lease-1") -> Lease:
    lease = Lease.granted(lease_id, PATH, [10, 100, 0], 0.0, 5.0)
    lease.take((11, 130, 0))
    return lease


def left_in(folder: Path) -> list[list[Overdraft]]:
    """What each process has left there; the files stay."""
    found = []
    for left in OverdraftJournal(folder).left_behind():
        found.append(left.overdrafts())
        left.close(is_settled=False)
    return found


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder in which a process was killed."""
    script = textwrap.dedent(KILLED.format(folder=str(tmp_path)))
    subprocess.run([sys.executable, "-c", script], check=False)
    return tmp_path


def test_the_next_process_finds_what_a_killed_one_may_have_spent(killed: Path) -> None:
    expected = Overdraft("lease-1", PATH, (11, 125, 0), (1, 25, 0), 1000.0)
    assert left_in(killed) == [[expected]]


def test_it_is_there_until_it_is_settled_and_for_one_process_at_a_time(killed: Path) -> None:
    (left,) = OverdraftJournal(killed).left_behind()
    assert left_in(killed) == [], "another process is at it"
    left.close(is_settled=False)
    (left,) = OverdraftJournal(killed).left_behind()
    left.close(is_settled=True)
    assert list(killed.iterdir()) == []


def test_a_line_that_was_cut_off_is_left_out(killed: Path) -> None:
    (file,) = killed.iterdir()
    with file.open("ab") as torn:
        torn.write(b'{"lease": "lease-2", "caller": "0a')
    ((found,),) = left_in(killed)
    assert found.lease_id == "lease-1"


def test_what_a_living_process_writes_is_its_own(tmp_path: Path) -> None:
    living = OverdraftJournal(tmp_path)
    living.record(overdrawn(), 1000.0)
    assert left_in(tmp_path) == []
    living.close()
    assert len(left_in(tmp_path)) == 1, "it stopped before the limiter was back"


def test_nothing_is_left_where_all_is_settled(tmp_path: Path) -> None:
    journal = OverdraftJournal(tmp_path)
    journal.record(overdrawn("a"), 1000.0)
    journal.record(overdrawn("b"), 1000.0)
    journal.settled("a")
    assert ("a" in journal, "b" in journal) == (False, True)
    journal.settled("b")
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_settled_lease_is_not_found_again(tmp_path: Path) -> None:
    journal = OverdraftJournal(tmp_path)
    journal.record(overdrawn("a"), 1000.0)
    journal.record(overdrawn("b"), 1000.0)
    journal.settled("a")
    journal.close()
    ((found,),) = left_in(tmp_path)
    assert found.lease_id == "b"


def test_a_file_does_not_grow_with_the_calls(tmp_path: Path) -> None:
    journal, lease = OverdraftJournal(tmp_path), overdrawn()
    for _ in range(10_000):
        lease.take((1, 10, 0))
        journal.record(lease, 1000.0)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 1.1 * REWRITE_BYTES
    journal.close()
    ((found,),) = left_in(tmp_path)
    assert found.spent == (10_011, 100_130, 0)


def test_without_a_folder_that_can_be_written_no_overdraft_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not OverdraftJournal(tmp_path / "file").is_ready()
    assert not OverdraftJournal(None).is_ready()
    assert OverdraftJournal(tmp_path / "new").is_ready()


def test_of_a_lease_that_the_ledger_has_forgotten_only_the_excess_is_settled() -> None:
    overdraft = Overdraft("lease-1", PATH, (11, 125, 0), (1, 25, 0), 1000.0)
    assert overdraft.to_settle(1001.0) == ("lease-1", (11, 125, 0))
    later = 1000.0 + LEDGER_REMEMBERS_S
    assert overdraft.to_settle(later) == ("lease-1+", (1, 25, 0))
