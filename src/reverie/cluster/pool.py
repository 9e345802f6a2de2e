"""A pool of Ray actors: each makes once what is slow to make, and then does pieces of work.

    with Pool(Cluster("ray", actors=4), make) as pool:          # make() gives a function of one piece
        for number, result in pool.each(pieces):                # as they are done; `ordered=True`: in order
            ...

Pieces are functions of themselves alone, so it does not matter who does them, in which order, or how often they are
begun: a lost actor is replaced, and what it had is given to others. Only this process sees results and writes them
down, once each. No more than `ahead` pieces wait at an actor, and no more than that many results for the reader, so
a slow reader slows the actors. Actors that have no place yet are asked for all the same: Ray's autoscaler sees them.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

P = TypeVar("P")
R = TypeVar("R")
MOST_LOSSES = 30
"""Actors that a piece may cost before the run is given up."""
PATIENCE = 60.0
"""Seconds without any actor before it is said what is waited for."""
STARTING = 600
"""Seconds that a process of a cluster on this machine may take to start: many of them share few cores."""


@dataclass(frozen=True)
class Cluster:
    """Where work is done. address: `ray` (the cluster of RAY_ADDRESS, or else one on this machine for as long as it is
    used), or that of a running cluster. actors: how many at most; None: as many as the cluster has room for now. cpus,
    gpus: for each. ahead: pieces that wait at an actor, the one it does included."""

    address: str = "ray"
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    ahead: int = 2

    def __post_init__(self) -> None:
        if (self.actors is not None and self.actors < 1) or self.ahead < 1:
            raise ValueError(f"actors={self.actors}, ahead={self.ahead}: both must be at least 1.")
        if self.cpus <= 0 or self.gpus < 0:
            raise ValueError(f"cpus={self.cpus}: must be above 0; gpus={self.gpus}: must not be negative.")


@dataclass
class Actors:
    """What a recipe's section says of actors, as the command line does: on (an address), how many, cpus and gpus of
    each."""

    on: str = "ray"
    actors: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    def cluster(self, kinds: int = 1) -> Cluster:
        """With so many actors of each of `kinds`. ValueError for what cannot be."""
        return Cluster(self.on, self.actors * kinds, self.cpus, self.gpus)


def library() -> Any:
    """Ray; ValueError where it is not installed."""
    # It prints to stdout that an actor was lost, or that there are many, whatever its logging is told; here the first
    # is counted and survived, and the second is what was asked for.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|processes have been started")
    try:
        import ray
    except ImportError as error:
        raise ValueError("--on needs the library ray: install reverie[cluster], or leave --on out.") from error
    return ray


def connect(cluster: Cluster) -> bool:
    """Joins the cluster, or starts one here. Says whether it was started, or joined, by this call."""
    ray = library()
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS") if cluster.address == "ray" else cluster.address
    try:
        if address is None:
            places = None if cluster.actors is None else math.ceil(cluster.actors * cluster.cpus)
            with _as_here():
                ray.init(num_cpus=places, include_dashboard=False, object_store_memory=STORE, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ValueError(f"There is no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
    return True


@contextlib.contextmanager
def _as_here() -> Iterator[None]:
    """Lets processes that start now import what this one can, and not stand behind all others, as Ray would have it."""
    given = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": str(STARTING),
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


STORE = 256 * 2**20
"""Bytes that a cluster on this machine keeps of pieces and results; what is more goes to disk."""


class _Holder:
    """What runs in an actor."""

    def start(self, make: Callable[[], Callable[[Any], Any]]) -> int:
        self.do_piece = make()
        return os.getpid()

    def do(self, piece: Any) -> Any:
        return self.do_piece(piece)


class _Actor:
    """One actor as this process sees it: not ready before its `start` has answered."""

    def __init__(self, handle: Any, start: Any) -> None:
        self.handle, self.start, self.ready = handle, start, False
        self.pid = 0
        self.pieces: dict[Any, int] = {}

    def begun(self, pid: int) -> None:
        self.ready, self.pid = True, pid


class Pool:
    """Actors of one kind, until `close`."""

    def __init__(self, cluster: Cluster, make: Callable[[], Callable[[Any], Any]]) -> None:
        """make: runs in each actor and gives what does a piece; it and its result may be anything that pickles."""
        self.ray, self.cluster = library(), cluster
        self._joined = connect(cluster)
        self.most = cluster.actors or self._room()
        self._make = self.ray.put(make)
        self._kind = self.ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0)(_Holder)
        self._actors: list[_Actor] = []
        self.lost = 0
        """Actors that died so far."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets all actors go, and the cluster where it was only for this pool."""
        for actor in self._actors:
            self.ray.kill(actor.handle)
        self._actors.clear()
        if self.lost:
            print(f"reverie: {self.lost} actors were lost and replaced.", file=sys.stderr)
            self.lost = 0
        if self._joined:
            self.ray.shutdown()
            self._joined = False

    def _room(self) -> int:
        """How many actors the cluster has room for."""
        there = self.ray.cluster_resources()
        rooms = [there.get("CPU", 0.0) / self.cluster.cpus]
        if self.cluster.gpus:
            rooms.append(there.get("GPU", 0.0) / self.cluster.gpus)
        return max(1, int(min(rooms)))

    def pids(self) -> list[int]:
        """Of the actors that are at work, on whatever machine."""
        return [actor.pid for actor in self._actors if actor.ready]

    def each(self, pieces: Sequence[P], *, ordered: bool = False) -> Iterator[tuple[int, Any]]:
        """(number, result) of every piece, each once. What a piece raises is raised here."""
        run = _Each(self, pieces)
        if not ordered:
            yield from run.results()
            return
        held: dict[int, Any] = {}
        due = 0
        for number, result in run.results():
            held[number] = result
            while due in held:
                yield due, held.pop(due)
                due += 1

    def fill(self, seconds: float) -> int:
        """Asks for all actors now and waits for them, so long at most. Returns how many are there then."""
        while len(self._actors) < self.most:
            self.hire()
        starting = {actor.start: actor for actor in self._actors if not actor.ready}
        done, _ = self.ray.wait(list(starting), num_returns=len(starting), timeout=seconds)
        for ref in done:
            with contextlib.suppress(self.ray.exceptions.RayActorError):  # the next pass replaces it
                starting[ref].begun(self.ray.get(ref))
        return len(self.pids())

    def hire(self) -> None:
        handle = self._kind.remote()
        self._actors.append(_Actor(handle, handle.start.remote(self._make)))

    def dismiss(self, actor: _Actor) -> None:
        self.ray.kill(actor.handle)
        self._actors.remove(actor)


class _Each:
    """One pass over some pieces."""

    def __init__(self, pool: Pool, pieces: Sequence[Any]) -> None:
        self.pool, self.ray, self.pieces = pool, pool.ray, pieces
        self.waiting = deque(range(len(pieces)))
        self.losses = dict.fromkeys(self.waiting, 0)
        self.idle_since = time.monotonic()
        self.told = False
        self.unborn = 0

    def results(self) -> Iterator[tuple[int, Any]]:
        left = len(self.pieces)
        while left:
            self._staff(left)
            self._hand_out()
            refs = [ref for actor in self.pool._actors for ref in (actor.pieces if actor.ready else (actor.start,))]
            done, _ = self.ray.wait(refs, num_returns=1, timeout=1.0)
            self._complain(bool(done))
            for ref in done:
                found = self._taken(ref)
                if found is not None:
                    left -= 1
                    yield found

    def _staff(self, left: int) -> None:
        """As many actors as there may be and there is work for. Those without a place are no longer asked for when all
        work is handed out."""
        wanted = min(self.pool.most, left)
        while len(self.pool._actors) < wanted:
            self.pool.hire()
        if not self.waiting and any(actor.ready for actor in self.pool._actors):
            for actor in [a for a in self.pool._actors if not a.ready][: len(self.pool._actors) - wanted]:
                self.pool.dismiss(actor)

    def _hand_out(self) -> None:
        """To whoever has least, one by one, so that the last pieces do not queue at one actor."""
        for depth in range(self.pool.cluster.ahead):
            for actor in self.pool._actors:
                if self.waiting and actor.ready and len(actor.pieces) <= depth:
                    number = self.waiting.popleft()
                    actor.pieces[actor.handle.do.remote(self.pieces[number])] = number

    def _taken(self, ref: Any) -> tuple[int, Any] | None:
        """A result; None where an actor began or was lost."""
        actor = next(a for a in self.pool._actors if ref in a.pieces or ref == a.start)
        errors = self.ray.exceptions
        try:
            value = self.ray.get(ref)
        except errors.RayActorError:
            self._replace(actor)
            return None
        except errors.RayTaskError as error:
            raise (getattr(error, "cause", None) or error) from None
        if ref == actor.start and not actor.ready:
            actor.begun(value)
            return None
        return actor.pieces.pop(ref), value

    def _replace(self, actor: _Actor) -> None:
        """What a lost actor had goes first to others."""
        self.pool.lost += 1
        self.unborn = 0 if actor.ready else self.unborn + 1
        if self.unborn > MOST_LOSSES:
            raise RuntimeError(f"{self.unborn} actors were lost while they loaded; see Ray's logs.")
        for number in sorted(actor.pieces.values(), reverse=True):
            self.losses[number] += 1
            if self.losses[number] > MOST_LOSSES:
                raise RuntimeError(f"{self.losses[number]} actors were lost over piece {number}; see Ray's logs.")
            self.waiting.appendleft(number)
        actor.pieces.clear()
        self.pool.dismiss(actor)

    def _complain(self, moved: bool) -> None:
        now = time.monotonic()
        if moved or any(actor.ready for actor in self.pool._actors):
            self.idle_since = now
        elif not self.told and now - self.idle_since > PATIENCE:
            self.told = True
            each = f"{self.pool.cluster.cpus:g} CPUs and {self.pool.cluster.gpus:g} GPUs"
            print(f"reverie: waiting for a place for actors of {each}.", file=sys.stderr)
