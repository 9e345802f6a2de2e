"""A run as a command line and as Python, to copy. Uploads stand as the files that the server gives them out as."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from reverie.reason import make_plan
from reverie.studio.request import Request


def changes(request: Request) -> dict[str, Any]:
    """The fields of the plan that differ from those of its preset."""
    usual, own = make_plan(request.preset).to_json(), request.plan.to_json()
    return {name: value for name, value in own.items() if value != usual[name]}


def command_line(request: Request) -> str | None:
    """The same run in a shell; None for a context that the command line cannot say."""
    context = _context_words(request.context)
    if context is None:
        return None
    words = ["reverie", "edit" if request.kind == "edit" else "generate"]
    words += [f"{request.picture}.png"] if request.picture else []
    words += [request.prompt, *context, "--model", request.model]
    words += ["--preset", request.preset] if request.preset else []
    for name, value in changes(request).items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [] if value is None or value is False else [flag, str(value)]
    words += ["--seed", str(request.seed)] + (["-n", str(request.n)] if request.n > 1 else [])
    return shlex.join(words)


def _context_words(context: Sequence[Mapping[str, str]]) -> list[str] | None:
    """--context PICTURE WORDS and --image PICTURE, in order; None where words follow no picture."""
    words: list[str] = []
    lonely = False
    for part in context:
        if "image" in part:
            words += ["--image", f"{part['image']}.png"]
            lonely = True
        elif lonely:
            words[-2:] = ["--context", words[-1], part["text"]]
            lonely = False
        else:
            return None
    return words


def python_code(request: Request) -> str:
    """The same run in Python."""
    given: dict[str, Any] = {"preset": request.preset} if request.preset else {}
    given |= {name: value for name, value in changes(request).items() if value is not None} | {"seed": request.seed}
    given |= {"n": request.n} if request.n > 1 else {}
    given |= {"picture": f"{request.picture}.png"} if request.picture else {}
    arguments = [repr(request.prompt), *(f"{name}={value!r}" for name, value in given.items())]
    if request.context:
        parts = [
            f"Path({part['image'] + '.png'!r})" if "image" in part else repr(part["text"]) for part in request.context
        ]
        arguments.append(f"context=[{', '.join(parts)}]")
    head = "from pathlib import Path\n\n" if request.context else ""
    return (
        f"{head}import reverie\n\npainter = reverie.load({request.model!r})\n"
        f"result = painter.generate({', '.join(arguments)})\nresult.image.save('picture.png')\n"
    )
