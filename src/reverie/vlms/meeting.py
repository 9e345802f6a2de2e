"""Several conversations with one model at a time: at a server each by a request of its own, with a model that is loaded
here in batches.

What is asked about a picture may hang on the answer before, so questions cannot be collected beforehand. Each case
runs in a thread of its own; a thread that asks waits until every other one has asked, too, or is done, and then all
that was asked is answered as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from typing import Any, TypeVar

from . import VLM, Messages

C = TypeVar("C")
R = TypeVar("R")


def each(cases: Sequence[C], run: Callable[[Any, C], R], vlm: VLM, workers: int) -> list[R]:
    """run(vlm, case) of every case, in order, `workers` at a time. The first error ends it; no case is begun after it.

    vlm: a served one, which has an address (`url`) and takes requests side by side; any other is asked in batches of
    at most `workers` conversations through its `write_batch`, one after the other if it has none.
    """
    if workers < 2 or not cases or not (hasattr(vlm, "url") or hasattr(vlm, "write_batch")):
        return [run(vlm, case) for case in cases]
    workers = min(workers, len(cases))
    meeting = None if hasattr(vlm, "url") else Meeting(vlm, workers)
    results: dict[int, R] = {}
    errors: list[BaseException] = []
    places: Iterator[int] = iter(range(len(cases)))  # `next` on it is one step, which no other thread can divide

    def work() -> None:
        try:
            while not errors and (place := next(places, None)) is not None:
                results[place] = run(meeting or vlm, cases[place])
        except BaseException as error:  # raised again below, where somebody hears it
            errors.append(error)
        finally:
            if meeting:
                meeting.leave()

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in [pool.submit(work) for _ in range(workers)]:
                future.result()
        except BaseException as stop:  # an interrupt: what is under way still reaches the cache of answers
            errors.append(stop)
            raise
    if errors:
        raise errors[0]
    return [results[place] for place in range(len(cases))]


@dataclass(eq=False)
class _Question:
    messages: Messages
    how: tuple[int, float]
    seed: int
    answer: str | None = None
    error: BaseException | None = None


class Meeting:
    """A model as several threads ask it. All but `write` goes to it directly, by one thread at a time."""

    def __init__(self, vlm: VLM, present: int) -> None:
        """present: threads that ask; each calls `leave` when it is done."""
        self._vlm, self._present = vlm, present
        self._waiting: list[_Question] = []
        self._turn = Condition()

    def write(self, messages: Messages, max_new_tokens: int = 512, temperature: float = 0.0, seed: int = 0) -> str:
        question = _Question(messages, (max_new_tokens, temperature), seed)
        with self._turn:
            self._waiting.append(question)
            self._answer_if_all_wait()
            self._turn.wait_for(lambda: question.answer is not None or question.error is not None)
        if question.error is not None:
            raise question.error
        assert question.answer is not None
        return question.answer

    def leave(self) -> None:
        with self._turn:
            self._present -= 1
            self._answer_if_all_wait()

    def _answer_if_all_wait(self) -> None:
        """Called with the lock held: everybody else waits for it, so nobody asks meanwhile."""
        if not self._waiting or len(self._waiting) < self._present:
            return
        waiting, self._waiting = self._waiting, []
        for how in dict.fromkeys(question.how for question in waiting):
            group = [question for question in waiting if question.how == how]
            try:
                talks, seeds = [question.messages for question in group], [question.seed for question in group]
                for question, answer in zip(group, self._vlm.write_batch(talks, *how, seeds), strict=True):
                    question.answer = answer
            except BaseException as error:  # told to everybody whose question it was
                for question in group:
                    question.error = error
        self._turn.notify_all()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._vlm, name)
        if not callable(found):
            return found

        def alone(*arguments: Any, **keywords: Any) -> Any:
            with self._turn:
                return found(*arguments, **keywords)

        return alone
