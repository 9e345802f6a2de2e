"""`reverie generate --prompts FILE --out DIR`: pictures of every line of a file, here or on a cluster; a run that was
stopped goes on where it was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from reverie.commands.cluster_options import cluster_of
from reverie.commands.outputs import check_writable, numbered, slug
from reverie.files import claim, write_atomically
from reverie.fitting import Fitting
from reverie.judges.load import check_judge
from reverie.models.prompt_length import check_length
from reverie.models.registry import check_prompt, resolve
from reverie.png import check_size, save_png
from reverie.refusals import check_canvas, check_place, check_thinks, usual_judge

if TYPE_CHECKING:
    from reverie.reason import Plan


@dataclass(frozen=True)
class Wanted:
    """One picture of a file of prompts. file: its name in the folder."""

    prompt: str
    seed: int
    file: str


@dataclass(frozen=True)
class Brush:
    """Paints batches of them; loads its model where it works."""

    model: str
    device: str | None
    dtype: str | None
    plan: Plan
    size: int | None
    fitting: Fitting

    def __call__(self) -> Callable[[Sequence[Wanted]], list[bytes]]:
        from reverie.events import Finished
        from reverie.painter import load

        painter = load(self.model, self.device, self.dtype, **self.fitting.said())

        def paint(batch: Sequence[Wanted]) -> list[bytes]:
            """The pictures as they lie on disk, with their recipes, in the order of the batch."""
            files: dict[int, bytes] = {}
            events = painter.run(self.plan, [one.prompt for one in batch], [one.seed for one in batch], pieces=1)
            with TemporaryDirectory() as folder:
                for event in events:
                    if isinstance(event, Finished) and event.picture is not None:
                        path = save_png(event.picture, Path(folder) / "picture.png", event.recipe, self.size)
                        files[event.image] = path.read_bytes()
            return [files[place] for place in range(len(batch))]

        return paint


def generate_many(arguments: argparse.Namespace, plan: Plan) -> int:
    """Prints the names of all pictures, those that were there before included."""
    on = cluster_of(arguments)
    prompts = _checked(arguments, plan)
    if arguments.out is None:
        raise ValueError("--prompts needs --out, a folder for the pictures.")
    out = Path(arguments.out)
    check_writable(out)
    seed = arguments.seed or 0
    about = {"model": arguments.model, "plan": plan.to_json(), "seed": seed, "n": arguments.n, "size": arguments.size}
    claim(out / "run.json", {**about, "prompts": prompts})
    wanted = all_of(prompts, arguments.n, seed)
    todo = [one for one in wanted if not (out / one.file).is_file()]
    batches = [todo[first : first + arguments.batch] for first in range(0, len(todo), arguments.batch)]
    brush = Brush(arguments.model, arguments.device, arguments.dtype, plan, arguments.size, Fitting.of(arguments))
    done = len(wanted) - len(todo)
    for number, files in _painted(brush, batches, on):
        for one, data in zip(batches[number], files, strict=True):
            write_atomically(out / one.file, lambda part, data=data: part.write_bytes(data))  # type: ignore[misc]
        done += len(files)
        if not arguments.quiet:
            print(f"\r{done} of {len(wanted)} pictures", end="" if done < len(wanted) else "\n", file=sys.stderr)
    print(*(out / one.file for one in wanted), sep="\n")
    return 0


def all_of(prompts: Sequence[str], n: int, seed: int) -> list[Wanted]:
    """The pictures of a file, in order. A seed depends on the run's, the line's number and the copy alone."""
    from reverie.benchmarks.protocol import image_seed

    digits, found = len(str(len(prompts))), []
    for number, prompt in enumerate(prompts, 1):
        names = numbered(Path(f"{number:0{digits}}-{slug(prompt)}.png"), n)
        found += [Wanted(prompt, image_seed(seed, str(number), copy), name.name) for copy, name in enumerate(names)]
    return found


def _checked(arguments: argparse.Namespace, plan: Plan) -> list[str]:
    """The prompts, once it is clear that they and the plan can be painted."""
    from reverie.data.prompts import lines

    given = ("prompt", "context", "trace", "json")
    other = next((name for name in given if getattr(arguments, name)), None)
    if other is not None:
        said = "a prompt" if other == "prompt" else f"--{other}"
        raise ValueError(f"--prompts paints every line of a file, and {said} belongs to one picture: leave one out.")
    if arguments.n < 1 or arguments.batch < 1:
        raise ValueError(f"-n {arguments.n}, --batch {arguments.batch}: both must be at least 1.")
    if arguments.seed is not None and arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: must not be negative.")
    check_place(arguments.device, arguments.dtype)
    check_size(arguments.size)
    source = resolve(arguments.model)
    Fitting.of(arguments).check(source)
    check_thinks(source, plan)
    check_canvas(source, plan)
    if plan.judges and plan.judge is None:
        usual_judge(source)
    prompts = [prompt.text for prompt in lines(Path(arguments.prompts))]
    for prompt in dict.fromkeys(prompts):
        check_prompt(prompt)
        check_length(source, prompt)
        check_judge(plan, prompt)
    return prompts


def _painted(brush: Brush, batches: Sequence[Sequence[Wanted]], on: Any) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the batch, its files), here in order, on a cluster as they are done."""
    if not batches:
        return
    if on is None:
        paint = brush()
        yield from ((number, paint(batch)) for number, batch in enumerate(batches))
        return
    from reverie.cluster.pool import Pool

    with Pool(on, brush) as pool:
        yield from pool.each(batches)
