"""Who is next: clients take turns, and runs that fit into one canvas go together."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the queue needs to know of a run."""

    @property
    def client(self) -> str: ...

    @property
    def size(self) -> int:
        """Rows of the canvas that it needs."""

    @property
    def together(self) -> object | None:
        """Runs that agree in this share a canvas; None stays alone."""


Run = TypeVar("Run", bound=Waiting)


class FairQueue(Generic[Run]):
    """Round robin: a client that sends many runs waits for them longer, and nobody else does."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Run]] = OrderedDict()
        """In the order of their turns; nobody is here with nothing to do."""

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def __iter__(self) -> Iterator[Run]:
        """In the order in which they would be painted one by one."""
        lines = [list(line) for line in self._clients.values()]
        for turn in range(max(map(len, lines), default=0)):
            yield from (line[turn] for line in lines if turn < len(line))

    def of(self, client: str) -> int:
        """How many runs of a client wait."""
        return len(self._clients.get(client, ()))

    @property
    def rows(self) -> int:
        return sum(run.size for run in self)

    def position(self, run: Run) -> int:
        """How many stand before it."""
        return next((place for place, other in enumerate(self) if other is run), 0)

    def put(self, run: Run, first: bool = False) -> None:
        """At the end of its client's line; with `first` it is the very next."""
        line = self._clients.setdefault(run.client, deque())
        if first:
            line.appendleft(run)
            self._clients.move_to_end(run.client, last=False)
        else:
            line.append(run)

    def remove(self, run: Run) -> None:
        line = self._clients[run.client]
        line.remove(run)
        if not line:
            del self._clients[run.client]

    def take(self, room: int) -> list[Run]:
        """The next run, and others that fit beside it into `room` rows, one of each client in turn."""
        leader = next(iter(self), None)
        if leader is None:
            return []
        taken = [leader]
        self._leave(leader)
        room -= leader.size
        found = leader.together is not None
        while found:
            found = False
            for client in list(self._clients):
                fits = (r for r in self._clients[client] if r.together == leader.together and r.size <= room)
                run = next(fits, None)
                if run is not None:
                    taken.append(run)
                    self._leave(run)
                    room -= run.size
                    found = True
        return taken

    def _leave(self, run: Run) -> None:
        """Its client has had a turn."""
        self.remove(run)
        if run.client in self._clients:
            self._clients.move_to_end(run.client)
