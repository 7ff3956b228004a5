"""The audit of a play: which answers were reused, by which technique, and which of them wrongly;
and which prompts were shaped. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.bench.agent_replay.findings.audit import Verdict, best_of, prompt_faults, writes
from penstock.bench.agent_replay.players.load_plan import Answered
from penstock.bench.agent_replay.players.plays import Play
from penstock.bench.agent_replay.traffic.recordings import Json
from penstock.bench.agent_replay.traffic.requests import Writing, chat_body
from penstock.bench.agent_replay.traffic.turn_keys import turn_key
from penstock.bench.harness.intervals import Interval, of_share


@dataclass
class Audit:
    """What was found. Not frozen: it counts.

    Attributes:
        reused: answers by technique.
        alike: of these, those with other words and the same details.
        wrong: of these, those that are not the recorded answer.
        wrong_writes: of the wrong ones, those that call a tool which changes something.
        shaped: prompts that were sent otherwise than they were asked.
        lossy: of these, those in which a model reads something else, by what that is.
    """

    reused: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    wrong_writes: int = 0
    shaped: int = 0
    lossy: Counter[str] = field(default_factory=Counter)

    def bounds(self, technique: str) -> Interval:
        """The 95 % interval of a technique's share of wrong answers; 0 to 1 without an answer."""
        reused = self.reused[technique]
        if not reused:
            return Interval(0.0, 1.0, 0, "answers")
        return of_share(self.wrong[technique], reused, "answers")


def audit(plays: Iterable[Play]) -> Audit:
    """Look at every answer and every prompt of plays through Penstock."""
    found = Audit()
    for play in plays:
        _audit_answers(play, found)
        _audit_prompts(play, found)
    return found


def _audit_answers(play: Play, found: Audit) -> None:
    recorded = _recorded(play)
    for each in play.answered:
        if not each.reused:
            continue
        verdict = best_of(each.answer, recorded[each.run, each.call])
        found.reused[each.reused] += 1
        found.alike[each.reused] += verdict is Verdict.ALIKE
        found.wrong[each.reused] += verdict is Verdict.WRONG
        found.wrong_writes += verdict is Verdict.WRONG and writes(each.answer)


def wrong_answers(play: Play) -> list[Answered]:
    """Answers that are none of the recorded ones, also of an arm that does not say which it
    reused.
    """
    recorded = _recorded(play)
    return [
        each
        for each in play.answered
        if not each.error and best_of(each.answer, recorded[each.run, each.call]) is Verdict.WRONG
    ]


def _recorded(play: Play) -> Mapping[tuple[str, int], list[Json]]:
    """The answers that were recorded for each call's request: runs may ask the same."""
    keys, answers = {}, defaultdict(list)
    for run in play.workload.runs:
        for call, end in enumerate(run.ends):
            # Equal instructions and tools are part of equal requests.
            key = (run.cluster.partition("-")[0], turn_key(run.prompt(end), run.settings))
            keys[run.name, call] = key
            answers[key].append(run.messages[end])
    return {place: answers[key] for place, key in keys.items()}


def _audit_prompts(play: Play, found: Audit) -> None:
    runs = {run.name: run for run in play.workload.runs}
    for note in play.noted:
        if not note.messages:
            continue
        asked = chat_body(runs[note.run], note.call, Writing.AS_RECORDED)
        sent = {"messages": note.messages, "tools": note.tools}
        if sent == {"messages": asked["messages"], "tools": asked.get("tools", [])}:
            continue
        found.shaped += 1
        for fault in prompt_faults(sent, asked):
            found.lossy[fault.split()[0]] += 1
