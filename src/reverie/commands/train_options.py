"""The options of `reverie train` and `reverie plan`."""

from __future__ import annotations

import argparse


def _recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a YAML file, such as recipes/atelier/janus.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="put in place of the recipe's own values")


def add(parser: argparse.ArgumentParser) -> None:
    _recipe(parser)
    parser.add_argument("--fit", metavar="SIZE", help="measure first and cut batches until it fits, such as 24GB")


def add_plan(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("recipe", nargs="?", help="a YAML file, such as recipes/atelier/janus.yaml; or else --method")
    option("overrides", nargs="*", metavar="key=value", help="put in place of the recipe's own values")
    option("--fit", default="24GB", metavar="SIZE", help="memory of each, or a GPU, such as h100 (default: 24GB)")
    option("--gpus", type=int, default=1, metavar="N", help="how many share the training (default: 1)")
    option("--device", help="that measures: cpu, cuda, ... (default: a GPU if there is one)")
    option("--json", action="store_true", help="everything that was looked at as one JSON object")
    _method(parser.add_argument_group("the cost of a way of reasoning, for one picture"))


def _method(group: argparse._ArgumentGroup) -> None:
    option = group.add_argument
    option("--method", metavar="NAME", help="direct, t2g, t2i-r1, twig, orm, prm, parm, parm++ or thinkdiff")
    option("--model", default="atelier-janus", metavar="NAME", help="that paints (default: atelier-janus)")
    option("-n", "--candidates", type=int, metavar="N", help="that compete (default: 20 where there is a choice)")
    option("--judge", metavar="NAME", help="who chooses and looks back (default: as for generate)")
    option("--reflect", type=int, metavar="N", help="rounds of looking back")
    option("--regions", type=int, metavar="K", help="parts of the image with a thought each")
    option("--judge-steps", type=int, metavar="N", help="at how many points prm and parm look")
    option("--judge-from", type=int, metavar="K", help="the first of these at which parm asks")
    option("--thought-tokens", type=int, metavar="N", help="the longest thought")
    option("--guidance", type=float, metavar="W", help="1 switches guidance off")
    option("--stopped", type=float, default=0.5, metavar="S", help="share that parm's judge stops (default: 0.5)")
    option("--prompt", default="a red cat", help="that is measured with (default: a red cat)")
