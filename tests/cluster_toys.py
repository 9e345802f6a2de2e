"""Painters and pieces of work that run in actors."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

from toy_run import Dabs


def die_after(seconds: float) -> None:
    """SIGKILL to this process, whatever it is doing then."""
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


class Mortal(Dabs):
    """Is killed in the middle of its sixth batch or shortly after, but not in the process that must live."""

    def __init__(self, parent: int) -> None:
        self.parent, self.calls = parent, 0

    def paint(self, prompts, seeds, plan):
        self.calls += 1
        if os.getpid() != self.parent and self.calls == 6:
            die_after(random.uniform(0.0, 0.1))
        time.sleep(0.04)
        return super().paint(prompts, seeds, plan)


class Picky(Dabs):
    """Refuses one prompt."""

    def paint(self, prompts, seeds, plan):
        if any(prompt.endswith("kind 7") for prompt in prompts):
            raise ValueError("no sevens")
        return super().paint(prompts, seeds, plan)


class Square:
    """A piece of work: squares a number; minus one cannot be squared here."""

    def __call__(self):
        return self.square

    def square(self, number: int) -> int:
        if number < 0:
            raise ValueError(f"{number} is below 0")
        return number * number


def hunt(stop: threading.Event, every: float, killed: list[int], most: int) -> None:
    """Kills actors of the cluster that this process began, at most so many, and notes who they were."""
    import psutil

    while len(killed) < most and not stop.wait(every):
        below = psutil.Process().children(recursive=True)
        actors = [process.pid for process in below if process.name().startswith("ray::_Holder")]
        if actors:
            killed.append(random.choice(actors))
            os.kill(killed[-1], signal.SIGKILL)
