"""The command line: verbs only. Each calls one function of `commands/` and imports it when it is called, so that
`reverie --help` answers at once.

Exit codes: 0 done; 1 a replay that differs, or a judge that is not fit; 2 input that cannot be used (one sentence on
stderr); 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        print(f"reverie: {message}; `{self.prog} --help` tells more.", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.call(arguments) or 0
    except KeyboardInterrupt:
        print("reverie: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ValueError as error:
        print(f"reverie: {one_line(error)}", file=sys.stderr)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else one_line(error)
        print(f"reverie: {what}.", file=sys.stderr)
    return 2


def one_line(error: Exception) -> str:
    """The message without line breaks, and without control characters, which names of files may hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(str(error).split()))


def build_parser() -> Parser:
    parser = Parser(prog="reverie", description="Image generators that think before they paint.")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for name, (help_text, arguments, call) in VERBS.items():
        verb = verbs.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        arguments(verb)
        verb.set_defaults(call=call)
    return parser


# --- The arguments of each verb.

# A switch that is not given leaves the preset's value alone.
SWITCH: dict[str, Any] = {"action": "store_true", "default": None}


def _model_arguments(parser: Parser) -> None:
    from reverie.commands.model_options import add

    add(parser)


def plan_arguments(parser: Parser, judge: str = "--judge", official: str = "--official") -> None:
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="direct (no reasoning), t2g, t2i-r1, twig (think), parm or parm++ (choose, look back)",
    )
    parser.add_argument("--think", metavar="WHEN", help="never, before, during or after painting")
    parser.add_argument("--choose", metavar="HOW", help="first (no choice), orm, prm or parm: how a judge chooses")
    parser.add_argument("--candidates", type=int, metavar="N", help="images that compete for each one kept")
    parser.add_argument(
        "--reflect", type=int, metavar="N", help="rounds of looking back, for each region if there are any"
    )
    parser.add_argument("--thinker", metavar="NAME", help="who reasons before painting in the painter's place")
    parser.add_argument("--eyes", metavar="NAME", help="who looks at given pictures for a painter that only reads")
    parser.add_argument(
        judge,
        dest="judge",
        metavar="NAME",
        help="who chooses, looks back, criticises regions: a name or folder (default: the painter)",
    )
    parser.add_argument("--judge-steps", type=int, metavar="N", help="at how many points prm and parm look")
    parser.add_argument("--judge-from", type=int, metavar="K", help="the first of these at which parm asks")
    parser.add_argument("--assess", metavar="WHEN", help="first or every: at which clear looks parm asks for potential")
    parser.add_argument("--rules", metavar="NAME", help="greedy, or official: how a judge's answers are read")
    parser.add_argument("--correct", metavar="HOW", help="see, words or again: what the painter learns of a flaw")
    parser.add_argument("--keep", metavar="ROUND", help="last or best: what stays if no attempt satisfies the judge")
    parser.add_argument("--regions", type=int, metavar="K", help="parts of the image with a thought each")
    parser.add_argument("--schedule", metavar="HOW", help="of the regions: uniform, adaptive, or heights such as 2:1:1")
    parser.add_argument("--threshold", type=float, metavar="S", help="the score, of 100, at which a region stays")
    parser.add_argument("--keep-prompt", **SWITCH, help="paint from the prompt and the thought after it")
    parser.add_argument(
        official, dest="official", **SWITCH, help="think while painting exactly as the published script does"
    )
    parser.add_argument("--guidance", type=float, metavar="W", help="how strongly to follow the prompt; 1 is off")
    parser.add_argument("--temperature", type=float, metavar="T", help="of the image tokens; 0 takes the likeliest")
    parser.add_argument("--thought-tokens", type=int, metavar="N", help="the longest thought")


class _Context(argparse.Action):
    """Collects --context IMAGE TEXT and --image IMAGE into one list, in the order in which they were typed."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.context = [*(namespace.context or ()), tuple(values)]


def _generate_arguments(parser: Parser) -> None:
    from reverie.commands import cluster_options

    parser.add_argument("prompt", nargs="?", help="what should be in the picture")
    parser.add_argument(
        "--prompts", metavar="FILE", help="paint every line of this file instead, into the folder --out"
    )
    parser.add_argument(
        "--batch", type=int, default=16, metavar="N", help="with --prompts: images at a time (default: 16)"
    )
    cluster_options.add(parser)
    parser.add_argument(
        "--context", nargs=2, action=_Context, metavar=("IMAGE", "TEXT"),
        help="a picture and its word, as an example; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--image",
        nargs=1,
        action=_Context,
        dest="context",
        metavar="IMAGE",
        help="a picture before the prompt; likewise",
    )
    _painting_arguments(parser)


def _edit_arguments(parser: Parser) -> None:
    parser.add_argument("picture", help="the picture to be edited (PNG, JPEG, WebP); it stays as it is")
    parser.add_argument("prompt", metavar="instruction", help="what should be different, or what happens")
    _painting_arguments(parser)


def _painting_arguments(parser: Parser) -> None:
    from reverie.commands.model_options import add_fitting

    _model_arguments(parser)
    add_fitting(parser)
    plan_arguments(parser)
    parser.add_argument("--seed", type=int, help="of the first image, the others count on from it (default: random)")
    many = "how many images (default: 1); with --choose and no --candidates, how many compete for one"
    parser.add_argument("-n", type=int, default=1, metavar="N", help=many)
    parser.add_argument("--out", metavar="PATH", help="file or folder (default: here, named after the prompt)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="scale the picture to this size for display")
    parser.add_argument("--json", action="store_true", help="one JSON line for each event, and nothing else on stdout")
    parser.add_argument("--trace", metavar="DIR", help="keep every event and preview in this new folder")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, only the names of the files")


def _replay_arguments(parser: Parser) -> None:
    parser.add_argument("image", help="a PNG that reverie wrote")
    parser.add_argument("--from-thought", action="store_true", help="keep the stored thought instead of thinking again")
    parser.add_argument("--from-choice", action="store_true", help="keep the stored choice instead of judging again")
    parser.add_argument("--out", metavar="PATH", help="file or folder (default: IMAGE-replay.png, in this folder)")
    parser.add_argument(
        "--picture", action="append", metavar="FILE",
        help="where a picture is now that this one was painted from; may be repeated",
    )  # fmt: skip
    parser.add_argument("--model", metavar="NAME", help="another place of the same model (default: as in the recipe)")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: as in the recipe, if it is here)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _models_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def _describe_arguments(parser: Parser) -> None:
    parser.add_argument("image", help="a picture (PNG, JPEG, WebP)")
    _model_arguments(parser)
    parser.add_argument("--question", help="ask this instead of what the picture shows")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def _evaluate_arguments(parser: Parser) -> None:
    from reverie.commands.evaluate_options import add

    add(parser)
    _model_arguments(parser)
    parser.set_defaults(model=None)
    # here --judge and --official are about the benchmark
    plan_arguments(parser, "--verifier", "--official-painting")


def _doctor_arguments(parser: Parser) -> None:
    from reverie.commands.doctor_options import add

    add(parser)


def _compare_arguments(parser: Parser) -> None:
    parser.add_argument("first", help="the folder of a run that evaluate wrote")
    parser.add_argument("second", help="the folder of another run of the same benchmark")
    parser.add_argument("--all", action="store_true", help="list every prompt that differs, not only the first")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def _serve_arguments(parser: Parser) -> None:
    from reverie.commands.serve_options import add

    add(parser)


def _train_arguments(parser: Parser) -> None:
    from reverie.commands.train_options import add

    add(parser)


def _plan_arguments(parser: Parser) -> None:
    from reverie.commands.train_options import add_plan

    add_plan(parser)


def _data_arguments(parser: Parser) -> None:
    from reverie.commands.data_options import add

    add(parser)


# --- The verbs. Each imports what it needs when it is called.


def _generate(arguments: argparse.Namespace) -> int:
    from reverie.commands.generate import generate

    return generate(arguments)


def _replay(arguments: argparse.Namespace) -> int:
    from reverie.commands.replay import replay

    return replay(arguments)


def _models(arguments: argparse.Namespace) -> int:
    from reverie.commands.models import models

    return models(arguments.json)


def _describe(arguments: argparse.Namespace) -> int:
    from reverie.commands.describe import describe

    return describe(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from reverie.commands.evaluate import evaluate

    return evaluate(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from reverie.commands.doctor import doctor

    return doctor(arguments)


def _compare(arguments: argparse.Namespace) -> int:
    from reverie.commands.compare import compare

    return compare(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from reverie.commands.train import train

    return train(arguments.recipe, arguments.overrides, arguments.fit)


def _plan(arguments: argparse.Namespace) -> int:
    from reverie.commands.plan import plan

    return plan(arguments)


def _data(arguments: argparse.Namespace) -> int:
    from reverie.commands import data, rewrites

    made = {"features": data.features, "thoughts": data.thoughts, "rewrites": rewrites.rewrites}
    return made.get(arguments.what, data.verifier)(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from reverie.commands.serve import serve

    return serve(arguments)


def _studio(arguments: argparse.Namespace) -> int:
    from reverie.commands.serve import serve

    return serve(arguments, browser=True)


def _version(arguments: argparse.Namespace) -> int:
    from reverie import __version__

    print(f"reverie {__version__}")
    return 0


VERBS = {
    "generate": ("Paint a prompt, with or without thinking first.", _generate_arguments, _generate),
    "edit": ("Change a picture as an instruction says, with or without thinking first.", _edit_arguments, _generate),
    "replay": ("Paint a picture again from the recipe inside it, and compare.", _replay_arguments, _replay),
    "describe": ("Say what a model sees in a picture.", _describe_arguments, _describe),
    "models": ("List the models that are here or can be loaded.", _models_arguments, _models),
    "evaluate": ("Run a benchmark, or judge pictures by it, and report.", _evaluate_arguments, _evaluate),
    "doctor": ("See whether judges and evaluators are fit, before a long run.", _doctor_arguments, _doctor),
    "compare": ("Say by how much one run of a benchmark is better than another.", _compare_arguments, _compare),
    "train": ("Run a training recipe.", _train_arguments, _train),
    "plan": ("Say what a recipe takes in memory and time, and how it fits.", _plan_arguments, _plan),
    "data": ("Build data to train on.", _data_arguments, _data),
    "serve": ("Answer over HTTP: our own interface and that of OpenAI.", _serve_arguments, _serve),
    "studio": ("Open the studio in a browser: see it think.", _serve_arguments, _studio),
    "version": ("Print the version.", lambda parser: None, _version),
}


if __name__ == "__main__":
    raise SystemExit(main())
