"""How much of a cluster's time is work: a painter that only sleeps, by 1 to 64 actors on this machine.

    python speed/cluster.py [--actors 1 2 4 8 16 32 64] [--seconds 0.5] [--pieces 20]

Prints a line of JSON for each number of actors: seconds for so many pieces each, the share of them that is work once
all actors are there, and what a piece costs beyond its own time where one actor does pieces that take none. Actors that
sleep need no core of their own, so this says what the pool costs, not what a machine paints.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from reverie.cluster.pool import Cluster, Pool, connect


@dataclass(frozen=True)
class Sleeper:
    """Sleeps, and says who slept."""

    seconds: float

    def __call__(self) -> Callable[[int], int]:
        import os

        def sleep(piece: int) -> int:
            time.sleep(self.seconds)
            return os.getpid()

        return sleep


def timed(actors: int, seconds: float, pieces: int) -> tuple[float, int]:
    """Seconds that all pieces took once all actors were there, and how many there were."""
    with Pool(Cluster(actors=actors), Sleeper(seconds)) as pool:
        there = pool.fill(600)
        begun = time.monotonic()
        found = [who for _, who in pool.each(range(pieces))]
        assert len(found) == pieces
        return time.monotonic() - begun, there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--pieces", type=int, default=20, help="for each actor")
    arguments = parser.parse_args()
    connect(Cluster(actors=max(arguments.actors)))
    for actors in arguments.actors:
        took, there = timed(actors, arguments.seconds, actors * arguments.pieces)
        ideal = arguments.seconds * arguments.pieces
        told = {"actors": there, "seconds": round(took, 2), "ideal": ideal, "efficiency": round(ideal / took, 3)}
        print(json.dumps(told), flush=True)
    took, _ = timed(1, 0.0, 1000)
    print(json.dumps({"overhead_ms": round(took, 3)}), flush=True)


if __name__ == "__main__":
    main()
