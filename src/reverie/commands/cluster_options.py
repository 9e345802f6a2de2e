"""The options of commands whose work may be done on a cluster."""

from __future__ import annotations

import argparse
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverie.cluster.pool import Cluster


def add(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--on", metavar="WHERE", help="ray, or the address of a Ray cluster: work in actors there")
    option("--actors", type=int, metavar="N", help="with --on: how many at most (default: as there is room)")
    option("--actor-cpus", type=float, default=1.0, metavar="N", help="with --on: CPUs of each (default: 1)")
    option("--actor-gpus", type=float, default=0.0, metavar="N", help="with --on: GPUs of each (default: 0)")


def cluster_of(arguments: argparse.Namespace) -> Cluster | None:
    """Where the work is to be done; None: here. ValueError where that cannot be."""
    if arguments.on is None:
        if arguments.actors is not None:
            raise ValueError("--actors says how many work on a cluster: give --on, too.")
        return None
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--on needs the library ray: install reverie[cluster], or leave --on out.")
    from reverie.cluster.pool import Cluster

    return Cluster(arguments.on, arguments.actors, arguments.actor_cpus, arguments.actor_gpus)
