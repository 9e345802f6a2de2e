"""Rows of the table of "verify and reinforce" (arXiv 2501.13926) out of pools (verify_pool.py): choices and costs.

    python -m reverie.training.verify_table runs/pool/showo.npz --judge parm --out runs/table.json

The choices are those of `reverie/choose.py`, made by the same rules from the same numbers; tests compare them. A row of
N candidates is the mean over random subsets of a pool, so a larger pool makes a surer row. Costs are counted in whole
paintings: a path that is stopped at look l of L costs l / L, a question what `flops` of the pool says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.stats import Estimate, estimate
from ..files import write_atomically

Numbers = Mapping[str, np.ndarray]
SUBSETS = 24


@dataclass(frozen=True)
class Choice:
    """Of each prompt the candidate that is kept (P,), and what was spent, in paintings and in questions (P,)."""

    kept: np.ndarray
    painted: np.ndarray
    asked: np.ndarray


def first(numbers: Numbers) -> Choice:
    """No choice."""
    ones = np.ones(len(numbers["right"]))
    return Choice(np.zeros(len(ones), int), ones, 0 * ones)


def best_of(numbers: Numbers, judge: str, places: int = 1) -> Choice:
    """ORM: the highest P(yes), the first of equals. places: from how many each finished picture is looked at."""
    scores = numbers[f"{judge}/orm"]
    count = np.full(len(scores), float(scores.shape[1]))
    return Choice(scores.argmax(1), count, places * count if scores.shape[1] > 1 else 0 * count)


def oracle(numbers: Numbers) -> Choice:
    """Right, if any candidate is: what the best judge could reach."""
    right = numbers["right"]
    count = np.full(len(right), float(right.shape[1]))
    return Choice(right.argmax(1), count, count)


def prune(numbers: Numbers, judge: str, orm: str | None = None, first_look: int = 1, places: int = 1) -> Choice:
    """PARM: potential at the first clear look, then the highest P(yes) of who is left; the best prospects without any.
    `orm`: another judge for the last question; first_look: counted from 1, the first at which it is asked; places: as
    for `best_of`."""
    clear, hope = numbers[f"{judge}/clarity"] >= 0.5, numbers[f"{judge}/potential"]
    clear[:, :, : first_look - 1] = False
    looks = clear.shape[2]
    at = np.where(clear.any(2), clear.argmax(2), looks - 1)
    chance = np.take_along_axis(hope, at[..., None], 2)[..., 0]
    kept = clear.any(2) & (chance >= 0.5)
    number = np.where(clear.any(2), 1 - chance, 1.0)
    scores = np.where(kept, numbers[f"{orm or judge}/orm"], -np.inf)
    some, left = kept.any(1), kept.sum(1)
    chosen = np.where(some, scores.argmax(1), number.argmin(1))
    ends = np.where(kept | ~clear.any(2), 1.0, (at + 1) / looks)
    resumed = np.where(some, 0.0, 1 - np.take_along_axis(ends, chosen[:, None], 1)[:, 0])
    asked = (at + 2 - first_look).sum(1) + clear.any(2).sum(1) + np.where(left > 1, places * left, 0)
    if clear.shape[1] == 1:
        return Choice(chosen, np.ones(len(chosen)), np.zeros(len(chosen)))
    return Choice(chosen, ends.sum(1) + resumed, asked)


def looking_back(choose: Callable[[Numbers], Choice], judge: str, n: int) -> Callable[[Numbers], Choice]:
    """PARM++ with `keep=best` and `correct=again`: chooses among the first n candidates and, where the judge refuses
    the winner, among the next n, as long as there are any; the highest P(yes) of the winners is kept."""

    def chosen(numbers: Numbers) -> Choice:
        rows = np.arange(len(numbers["right"]))
        whole = Choice(0 * rows, np.zeros(len(rows)), np.zeros(len(rows)))
        best, refused = np.full(len(rows), -np.inf), np.full(len(rows), True)
        for begin in range(0, numbers["right"].shape[1], n):
            part = {name: array[:, begin : begin + n] for name, array in numbers.items()}
            found = choose(part)
            score = part[f"{judge}/orm"][rows, found.kept]
            better = refused & (score > best)
            whole = Choice(
                np.where(better, begin + found.kept, whole.kept),
                whole.painted + refused * found.painted,
                whole.asked + refused * found.asked,
            )
            best = np.where(better, score, best)
            refused &= best < 0.5
        return whole

    return chosen


@dataclass(frozen=True)
class Row:
    """A row of the table: shares of right images by task and over all, and the cost of one in plain paintings."""

    name: str
    n: int
    overall: Estimate
    tasks: dict[str, float]
    cost: float
    right: np.ndarray
    """Of each prompt (P,) the share of subsets in which what was kept is right."""

    def to_json(self) -> dict[str, Any]:
        o = self.overall
        return {
            "row": self.name, "n": self.n, "overall": o.mean, "low": o.low, "high": o.high, "tasks": self.tasks,
            "cost": round(self.cost, 3),
        }  # fmt: skip


class Pool:
    """The file of `verify_pool.py`, or those of all its parts, with the tasks and clusters of its prompts. ValueError
    where one of them is missing. every: only each so-many-th of its prompts, to be held against a smaller pool."""

    def __init__(self, *paths: str | Path, every: int = 1):
        from ..benchmarks.atelier_geneval import samples

        parts = dict(map(_opened, paths))
        self.about: dict[str, Any] = json.loads(next(iter(parts)))
        count = self.about.get("parts", 1)
        by_part = {json.loads(about).get("part", 0): numbers for about, numbers in parts.items()}
        if sorted(by_part) != list(range(count)):
            raise ValueError(f"{paths[0]} is of a pool of {count} parts; give the files of all of them.")
        self.samples = samples()[self.about.get("offset", 0) :: self.about["every"]]
        whole = {name: self._joined([by_part[i][name] for i in range(count)]) for name in by_part[0]}
        self.samples, self.numbers = self.samples[::every], {name: array[::every] for name, array in whole.items()}
        self.tags = [sample.tag for sample in self.samples]
        self.clusters = [sample.cluster for sample in self.samples]
        self.n = self.numbers["right"].shape[1]

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        """Part i holds every `len(parts)`-th prompt from the i-th on."""
        whole = np.zeros((len(self.samples), *parts[0].shape[1:]), np.float32)
        for place, part in enumerate(parts):
            whole[place :: len(parts)] = part
        return whole

    def row(self, name: str, choose: Callable[[Numbers], Choice], n: int, more: int = 0) -> Row:
        """The mean over `SUBSETS` subsets of n candidates; over all single ones for n = 1, once where n is all.
        more: so many others stand behind the n, in an order of their own."""
        shares, costs = [], []
        for subset in self._subsets(n, more):
            numbers = {key: np.take_along_axis(a, _like(subset, a), 1) for key, a in self.numbers.items()}
            choice = choose(numbers)
            shares.append(np.take_along_axis(numbers["right"], choice.kept[:, None], 1)[:, 0])
            costs.append((choice.painted + self.price * choice.asked).mean())
        return self._row(name, n, np.mean(shares, 0), float(np.mean(costs)))

    @property
    def price(self) -> float:
        """Of a question, in paintings."""
        return self.about.get("flops", {}).get("question", 0.0) / self.about.get("flops", {}).get("painting", 1.0)

    @property
    def places(self) -> int:
        """From which a finished picture is looked at."""
        return int(self.about.get("flops", {}).get("places", 1))

    def _row(self, name: str, n: int, right: np.ndarray, cost: float) -> Row:
        overall = estimate([float(x) for x in right], self.clusters, self.tags, "strata")
        names = dict.fromkeys(self.tags)
        tasks = {
            t: round(float(np.mean([x for x, tag in zip(right, self.tags, strict=True) if tag == t])), 4) for t in names
        }
        return Row(name, n, overall, tasks, cost, right)

    def difference(self, row: Row, other: Row) -> Estimate:
        """By how much `row` is better than `other`, prompt by prompt; both of pools of the same prompts."""
        return estimate([float(x) for x in row.right - other.right], self.clusters, self.tags, "strata")

    def _subsets(self, n: int, more: int = 0) -> list[np.ndarray]:
        """(P, n + more) numbers of candidates each."""
        prompts = len(self.samples)
        if n == self.n:
            return [np.tile(np.arange(n), (prompts, 1))]
        if n == 1:
            return [np.full((prompts, 1), candidate) for candidate in range(self.n)]
        rng = np.random.default_rng(n)
        return [rng.random((prompts, self.n)).argsort(1)[:, : n + more] for _ in range(SUBSETS)]


def _opened(path: str | Path) -> tuple[str, Numbers]:
    with np.load(path) as file:
        numbers = {name: file[name].astype(np.float32) for name in file.files if name != "about"}
        return file["about"].tobytes().decode(), numbers


def _like(subset: np.ndarray, array: np.ndarray) -> np.ndarray:
    return subset if array.ndim == 2 else subset[..., None]


def removed(row: Row, base: Row) -> float:
    """Share of the errors of `base` that `row` does not make."""
    assert row.overall.mean is not None
    assert base.overall.mean is not None
    return (row.overall.mean - base.overall.mean) / (1 - base.overall.mean)


def rows(pool: Pool, judges: Sequence[str], ns: Sequence[int], first_look: int = 1, back: int = 0) -> list[Row]:
    """Of one pool: none, every judge as ORM and as PARM, and the oracle, for every number of candidates.
    back: how often a judge looks back at its choice, in further rows, where the pool has more candidates."""
    ways: dict[str, Callable[[Numbers], Choice]] = {}
    for judge in judges:
        ways[f"ORM {judge}"] = lambda numbers, judge=judge: best_of(numbers, judge, pool.places)  # type: ignore[misc]
        if f"{judge}/potential" in pool.numbers:
            ways[f"PARM {judge}"] = lambda numbers, judge=judge: prune(  # type: ignore[misc]
                numbers, judge, first_look=first_look, places=pool.places
            )
    ways["oracle"] = oracle
    found = [pool.row("one", first, 1)]
    for n in (n for n in ns if n <= pool.n):
        found += [pool.row(name, choose, n) for name, choose in ways.items()]
        more = min(back * n, pool.n - n)
        for name, choose in ways.items() if more and n > 1 else ():
            if name != "oracle":
                again = looking_back(choose, name.partition(" ")[2], n)
                found.append(pool.row(f"{name}, back", again, n, more))
    return found


def draw(told: Mapping[str, Sequence[Mapping[str, Any]]], out: Path, against: str) -> None:
    """The errors of every way of choosing against the number of candidates, or the cost of an image, as an SVG."""
    from .curves import drawn

    curves: dict[str, list[tuple[float, float]]] = {}
    for pool, made in told.items():
        for name in dict.fromkeys(row["row"] for row in made[1:]):
            mine = [made[0], *(row for row in made[1:] if row["row"] == name and row["n"] > 1)]
            label = name if len(told) == 1 else f"{Path(pool).stem}: {name}"
            curves[label] = [(row[against], max(1 - row["overall"], 1e-3)) for row in mine]
    what = {"n": "the number of candidates", "cost": "the arithmetic of an image, in plain paintings"}[against]
    text = drawn(curves, f"share of wrong images against {what}", reach=0)
    write_atomically(out, lambda part: part.write_text(text, "utf-8"))


def differences(pool: Pool, made: Sequence[Row], others: Sequence[Row], name: str) -> list[tuple[Row, Estimate]]:
    """By how much each row is better than the one called `name` among `others` that has as many candidates (or one)."""
    of = {row.n: row for row in others if row.name == name}
    if not of:
        raise ValueError(f"there is no row {name!r}; there are {', '.join(dict.fromkeys(row.name for row in others))}.")
    found = ((row, of.get(row.n, of.get(1))) for row in made)
    return [(row, pool.difference(row, other)) for row, other in found if other is not None and row is not other]


def main(given: argparse.Namespace) -> None:
    told = {}
    first_made: list[Row] = []
    for path in given.pools:
        pool = Pool(*str(path).split(","), every=given.every)
        judges = given.judge or sorted({name.split("/")[0] for name in pool.numbers if name.endswith("/orm")})
        made = rows(pool, judges, given.ns, given.first_look, given.back)
        first_made = first_made or made
        told[str(path)] = [row.to_json() | {"errors removed": round(removed(row, made[0]), 4)} for row in made]
        for row in made:
            tasks = " ".join(f"{share:.3f}" for share in row.tasks.values())
            print(f"{row.name:24} {row.n:3} {row.overall}  {tasks}  cost {row.cost:.2f}  -{removed(row, made[0]):.3f}")
        for row, more in differences(pool, made, first_made, given.better_than) if given.better_than else ():
            print(f"{row.name:24} {row.n:3} better than {given.better_than} by {more}")
    if given.draw:
        draw(told, given.draw, given.against)
    if given.out:
        text = json.dumps(told, indent=1) + "\n"
        write_atomically(given.out, lambda part: part.write_text(text, "utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rows of the table of verify-and-reinforce, out of pools.")
    parser.add_argument("pools", nargs="+", help="files; those of one pool's parts joined by commas")
    parser.add_argument("--judge", action="append", help="of those in the pool (default: all)")
    parser.add_argument("--first-look", type=int, default=1, help="from which on PARM asks (a judge's clear_from)")
    parser.add_argument("--back", type=int, default=0, metavar="R", help="looking back R times: as many new candidates")
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th of a pool's prompts only")
    parser.add_argument("--ns", nargs="+", type=int, default=[20])
    parser.add_argument("--better-than", metavar="ROW", help="and by how much each beats this row of the first pool")
    parser.add_argument("--draw", type=Path, metavar="SVG", help="errors against --against, for all --ns")
    parser.add_argument("--against", choices=("n", "cost"), default="n")
    parser.add_argument("--out", type=Path)
    main(parser.parse_args())
