"""Talks to a worker process: one text, one answer, and a worker that dies is not a safe text."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["PeerWorker", "WorkerDiedError", "check_probe"]


class WorkerDiedError(RuntimeError):
    """The worker ended or did not answer in time; the next question starts a new one."""


class PeerWorker:
    """A worker speaking the protocol of peer_workers.py, as a context manager.

    Args:
        command: starts the worker.
        environment: all of its environment variables.
        log: file that takes what the worker writes to stderr.
        start_seconds, text_seconds: how long it may take to get ready and to judge one text.
        restarts: how often a dead worker is replaced before `ask` gives up with WorkerDiedError.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        log: Path,
        *,
        start_seconds: float = 120.0,
        text_seconds: float = 60.0,
        restarts: int = 5,
    ) -> None:
        self.command = [str(part) for part in command]
        self.environment = dict(environment)
        self.log = log
        self.start_seconds = start_seconds
        self.text_seconds = text_seconds
        self.restarts_left = restarts
        self.ready: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def ask(self, number: int, text: str, *, timed: bool = False) -> dict[str, Any]:
        """The answer to one text, {"id": number, "error": kind} where there is none.

        timed: the answer also has "wall_ns" and "cpu_ns", measured in the worker.
        A worker that dies, hangs or answers nonsense makes the error "worker died" and is replaced
        for the next text. Raises WorkerDiedError once `restarts` are used up, if a new worker does
        not get ready, or for an answer to another question.
        """
        if self._process is None:
            if self.restarts_left <= 0:
                raise WorkerDiedError("the worker died too often, see its log")
            self.restarts_left -= 1
            self._start()
        try:
            self._send({"id": number, "text": text, **({"timed": True} if timed else {})})
            answer = self._receive(self.text_seconds)
        except WorkerDiedError:
            self._stop(kill=True)
            return {"id": number, "error": "worker died"}
        if answer.get("id") != number:
            self._stop()
            raise WorkerDiedError(f"answer to {answer.get('id')!r}, the question was {number}")
        return answer

    def _start(self) -> None:
        self._pending = b""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
            )
        try:
            self.ready = dict(self._receive(self.start_seconds)["ready"])
        except (WorkerDiedError, KeyError):
            self._stop()
            raise WorkerDiedError(f"the worker did not get ready, see {self.log.name}") from None

    def _stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        if kill:
            process.kill()
        with contextlib.suppress(OSError):  # it may be dead already
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        data = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while data:  # unbuffered: a write may be short
                data = data[self._process.stdin.write(data) or 0 :]
        except OSError:
            raise WorkerDiedError("the worker takes no questions") from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        stdout = self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                data = stdout.read(65536) if selector.select(seconds) else b""
                if not data:
                    raise WorkerDiedError("no answer")
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise WorkerDiedError("no JSON") from None
        if not isinstance(answer, dict):
            raise WorkerDiedError("no JSON object")
        return answer


def check_probe(title: str, probe: Sequence[Mapping[str, Any]]) -> None:
    """A detector's verdicts on a question and on an attack must differ, or it does not work.

    Raises WorkerDiedError where the attack is not flagged, or has not the higher score.
    """
    question, attack = probe
    if not attack["flagged"] or not question["score"] < attack["score"]:
        raise WorkerDiedError(f"{title} does not tell an attack from a question: {list(probe)}")
