"""`penstock chat`: a conversation with a model, streamed, with the receipt of each answer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import click
from penstock.api.inference.v1 import inference_pb2 as pb
from penstock.api.router.v1 import router_pb2
from penstock.cli.interruption import Interruption
from penstock.cli.options import Command, with_session
from penstock.cli.output import to_json
from penstock.cli.problems import call_problem
from penstock.cli.receipt import receipt_line
from penstock.cli.session import Session
from penstock.client import PenstockError, PenstockSync
from rich.text import Text

Waiting = Callable[[], AbstractContextManager[None]]
TIMEOUT_S = 120.0
PROMPT = "you> "
HELP = "/new begins anew, /system TEXT sets instructions, /quit or Ctrl-D ends; Ctrl-C stops an "
HELP += "answer"
FINISHES = {
    pb.FINISH_REASON_LENGTH: "cut: the token limit was met; allow more with --max-tokens",
    pb.FINISH_REASON_FILTERED: "cut by a filter",
    pb.FINISH_REASON_TOOL_CALLS: "asks for tool calls, which this command does not make",
}


@dataclass(frozen=True)
class Conversation:
    """The turns so far, and how the next is to be answered; frozen, a turn makes a new one."""

    system: str = ""
    turns: tuple[pb.Message, ...] = ()
    max_tokens: int = 0
    temperature: float | None = None

    def with_turn(self, role: pb.Role, content: str) -> Conversation:
        """The conversation with one more turn."""
        return replace(self, turns=(*self.turns, pb.Message(role=role, content=content)))

    def task(self) -> pb.GenerateTask:
        """What the model is asked."""
        system = [pb.Message(role=pb.ROLE_SYSTEM, content=self.system)] if self.system else []
        task = pb.GenerateTask(messages=[*system, *self.turns], max_tokens=self.max_tokens)
        if self.temperature is not None:
            task.temperature = self.temperature
        return task


@dataclass
class Answer:
    """An answer as it comes in."""

    pieces: list[str] = field(default_factory=list)
    last: router_pb2.GenerateStreamResponse = field(
        default_factory=router_pb2.GenerateStreamResponse
    )

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)


@click.command(cls=Command)
@click.argument("message", nargs=-1)
@click.option("--model", default="", help="model to use; default: the router's for conversations")
@click.option("--system", default="", help="instructions for the model")
@click.option("--max-tokens", default=0, help="longest answer in tokens; default: the model's")
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=None, help="0 is repeatable; up to 2"
)
@with_session
def chat(
    session: Session,
    message: tuple[str, ...],
    model: str,
    system: str,
    max_tokens: int,
    temperature: float | None,
) -> None:
    """Chat with a model: one answer to MESSAGE, or a conversation without one.

    The conversation is kept until /new; standard input that is no terminal is one message.
    """
    conversation = Conversation(system, (), max_tokens, temperature)
    with session.client() as client:
        talk = _Talk(session, client, model)
        if message or not sys.stdin.isatty():
            text = " ".join(message) or sys.stdin.read().strip()
            if not text:
                raise click.UsageError("give a message, as an argument or on standard input")
            talk.answer(conversation.with_turn(pb.ROLE_USER, text))
        else:
            talk.converse(conversation)


class _Talk:
    """Shows answers; `converse` asks the person for messages until the end."""

    def __init__(self, session: Session, client: PenstockSync, model: str) -> None:
        self._session = session
        self._client = client
        self._model = model
        self._run = session.run(TIMEOUT_S, "chat")
        self._console = session.output.console

    def converse(self, conversation: Conversation) -> None:
        """Talk until /quit or the end of the input; an error leaves the conversation as it was."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() then edits lines and keeps their history
        self._console.print(Text(HELP, style="dim"))
        while (line := _next_line()) is not None:
            command, _, rest = line.partition(" ")
            match command:
                case "":
                    continue
                case "/quit" | "/exit":
                    return
                case "/new":
                    conversation = replace(conversation, turns=())
                case "/system":
                    conversation = replace(conversation, system=rest)
                case _ if command.startswith("/"):
                    self._console.print(Text(HELP, style="dim"))
                case _:
                    conversation = self._turn(conversation, line)

    def _turn(self, before: Conversation, line: str) -> Conversation:
        asked = before.with_turn(pb.ROLE_USER, line)
        try:
            with Interruption() as interruption:
                answer = self.answer(asked, interruption.waiting)
        except PenstockError as error:
            self._console.print(Text(call_problem(error), style="red"))
            return before
        except KeyboardInterrupt:
            self._console.print(Text("\nstopped; the turn is forgotten", style="yellow"))
            return before
        return asked.with_turn(pb.ROLE_ASSISTANT, answer.text)

    def answer(
        self, conversation: Conversation, waiting: Waiting = contextlib.nullcontext
    ) -> Answer:
        """Stream the answer to the console, then its receipt; as JSON, all at the end.

        Args:
            conversation: ends with the person's turn.
            waiting: entered whenever the next part is waited for.

        Raises:
            PenstockError: there is no answer, or it broke off.
        """
        answer = Answer()
        for delta in self._deltas(conversation, answer, waiting):
            if not self._session.output.as_json:
                self._console.print(Text(delta), end="", soft_wrap=True)
        finish = answer.last.chunk.finish_reason
        note = Text(FINISHES.get(finish, ""), style="yellow")
        data = {
            "text": answer.text,
            "finish_reason": pb.FinishReason.Name(finish),
            "receipt": to_json(answer.last.receipt),
        }
        parts = [note] if note.plain else []
        line = receipt_line(answer.last.receipt, with_notes=False)
        self._session.output.show("", *parts, line, data=data)
        return answer

    def _deltas(
        self, conversation: Conversation, answer: Answer, waiting: Waiting
    ) -> Iterator[str]:
        parts = self._client.generate_stream(conversation.task(), model=self._model, run=self._run)
        while True:
            with waiting():
                part = next(parts, None)
            if part is None:
                return
            answer.last = part
            answer.pieces.append(part.chunk.delta)
            yield part.chunk.delta


def _next_line() -> str | None:
    """The next line of the person; None at the end, by Ctrl-D or Ctrl-C."""
    try:
        return input(PROMPT).strip()
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None
