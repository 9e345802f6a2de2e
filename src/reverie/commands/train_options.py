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
    _recipe(parser)
    option = parser.add_argument
    option("--fit", default="24GB", metavar="SIZE", help="memory of each, or a GPU, such as h100 (default: 24GB)")
    option("--gpus", type=int, default=1, metavar="N", help="how many share the training (default: 1)")
    option("--device", help="that measures: cpu, cuda, ... (default: a GPU if there is one)")
    option("--json", action="store_true", help="everything that was looked at as one JSON object")
