"""Recorded answers of providers, whole and in pieces, read by the wires and by the service."""

from __future__ import annotations

import pytest
from penstock.bench.wires.corpus import split_failures
from penstock.bench.wires.playing import TASK, Played, differences, outcome, play, played
from penstock.bench.wires.sdk_recordings import problems, sdk_recordings
from penstock.rpc.errors import Fault
from penstock.testkit.raw_upstream import RawAnswer, in_pieces
from penstock.testkit.recordings import Recording, recording, recordings

from ..rig import serving

STREAMS = [each for each in recordings() if each.is_stream]


@pytest.mark.parametrize("made", recordings(), ids=str)
def test_a_recording_is_read_as_it_must_be(made: Recording) -> None:
    assert differences(made, played(made)) == []


@pytest.mark.parametrize("made", STREAMS, ids=str)
def test_a_stream_comes_to_the_same_byte_by_byte_and_wherever_it_is_split(made: Recording) -> None:
    assert split_failures(made, every=5) == []


def test_there_are_recordings_of_each_kind() -> None:
    assert len(recordings()) >= 40
    assert {each.wire for each in recordings()} == {"openai-chat", "anthropic-messages"}


@pytest.mark.parametrize("name", ["parallel_calls", "characters", "half_characters", "refusal"])
async def test_the_service_reads_a_stream_that_comes_byte_by_byte(name: str) -> None:
    made = recording("openai-chat", name)
    async with serving(RawAnswer(in_pieces(made.body)), provider=made.provider) as rig:
        result = await rig.streamed(TASK)
    got = outcome(Played(result))
    assert {key: got[key] for key in made.expect} == made.expect


async def test_the_service_reads_every_recording() -> None:
    wrong = []
    for made in recordings():
        kind = "text/event-stream" if made.is_stream else "application/json"
        answer = RawAnswer(in_pieces(made.body, 97), 200, kind)
        server = {"provider": made.provider, "wire": made.wire}
        async with serving(answer, **server) as rig:
            try:
                ask = rig.streamed if made.is_stream else rig.whole
                came = Played(await ask(TASK))
            except Fault as fault:
                came = Played(fault=fault)
        wrong += differences(made, came)
    assert wrong == []


def test_pings_and_comments_pass_as_keep_alives() -> None:
    comment = b": keep-alive\n\n"
    made = recording("openai-chat", "text")
    assert [chunk.keep_alive for chunk in play(made, [comment, made.body]).chunks][:2] == [
        True,
        False,
    ]
    ping = recording("anthropic-messages", "text")
    assert [chunk.keep_alive for chunk in played(ping).chunks].count(True) == 1


@pytest.mark.parametrize("made", list(sdk_recordings()), ids=lambda made: made.name[:24])
def test_the_recordings_of_the_providers_own_clients_are_read(made: Recording) -> None:
    assert problems(made) == []
