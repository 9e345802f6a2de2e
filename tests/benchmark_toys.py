"""Files in the forms of the public benchmarks, a painter that costs nothing, and a judge's answers that fit them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from test_benchmark_readers import write_wise
from test_served_vlm import text_of

from reverie.benchmarks import cobsat, dpg, reasonbench, risebench
from reverie.benchmarks.protocol import Painted

ROOT = Path(__file__).resolve().parents[1]
REAL = (ROOT / os.environ.get("REVERIE_BENCHMARKS", "../shared/benchmarks")).resolve()


class Toy:
    """Paints a small picture out of what it is given: the same for the same."""

    name = "toy"

    def __init__(self, refuses=lambda prompt: False):
        self.refuses, self.painted, self.given = refuses, [], []

    def paint(self, prompts, seeds, plan, inputs=()):
        for prompt in prompts:
            if self.refuses(prompt):
                raise ValueError(f"no words for {prompt!r}")
        pairs = list(zip(prompts, seeds, strict=True))
        self.painted += pairs
        self.given += inputs
        return [Painted(dab(f"{p} {s}"), f"painted {p}", f"thought of {p}", {"dabs": 1}) for p, s in pairs]


def dab(text, side=8):
    data = hashlib.sha256(text.encode()).digest()
    return Image.frombytes("RGB", (side, side), (data * (3 * side * side // 32 + 1))[: 3 * side * side])


def real(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"No {name} in {REAL}: set REVERIE_BENCHMARKS to the folder of the prompt files.")
    return REAL / name


def write_reasonbench(folder):
    for name, kind in reasonbench.DIMENSIONS.items():
        sets = {field: {"q1": "Is it?", "c1": "1 or 0", "q2": "Good?", "c2": "1 or 0"} for field in kind.questions}
        prompts = [{"id": n, "prompt": f"{name} {n}"} for n in range(1, 201)]
        (folder / kind.prompts).write_text(json.dumps(prompts))
        (folder / kind.questions_file).write_text(json.dumps([{"id": n, **sets} for n in range(1, 201)]))


def write_risebench(folder):
    records = []
    for number in range(360):
        category = list(risebench.CATEGORIES)[number % 4]
        record = {"index": f"{category}_{number}", "category": category, "instruction": f"do {number}"}
        records.append(record | {"image": "in.png", "reference": "it"})
    (folder / risebench.SIZES["full"][0]).write_text(json.dumps(records))
    dab("in").save(folder / "in.png")


def write_cobsat(folder):
    for task in cobsat.TASKS:
        for x in range(10):
            for theta in range(10):
                path = folder / cobsat.demo_image(task, x, theta)
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    dab(path.name).save(path, quality=95)


def write_dpg_questions(folder):
    """Two questions for each of the real prompts, the second about what the first is about."""
    lines = ["item_id,proposition_id,dependency,tuple,question_natural_language"]
    for sample in dpg.read(folder):
        lines += [f'{sample.id},1,0,"entity - whole (x)",Is there a thing?']
        lines += [f'{sample.id},2,1,"attribute - color (x)",Is it red?']
    (folder / "dpg_bench.csv").write_text("\n".join(lines) + "\n")


def data_of(name, folder):
    """The folder with the files of a benchmark: real ones, or written in their form where those cannot be had."""
    folder.mkdir()
    if name.startswith("wise"):
        write_wise(folder, name.removeprefix("wise-"), "_verified" if name == "wise-verified" else "")
    elif name == "t2i-reasonbench":
        write_reasonbench(folder)
    elif name == "risebench-full":
        write_risebench(folder)
    elif name.startswith("cobsat"):
        write_cobsat(folder)
    elif name == "dpg-bench":
        (folder / "prompts.jsonl").write_bytes((real("dpg_bench") / "prompts.jsonl").read_bytes())
        write_dpg_questions(folder)
    else:
        return real({"geneval2": "geneval2", "geneval++": "genevalpp"}[name])
    return folder


def digit(body, most):
    """A number from 0 to most - 1 that depends on the picture and the question, as an honest judge's would."""
    return hashlib.sha256(json.dumps(body["messages"]).encode()).digest()[0] % most


def reply(body):
    """What a judge says, whatever it is asked."""
    text = text_of(body)
    if "number only" in text:
        return str(1 + digit(body, 10))
    if '"correct"' in text:
        return json.dumps({"correct": digit(body, 2)})
    if '"score"' in text:
        return json.dumps({"score": [digit(body, 2), 0.5]})
    if "yes or no" in text:
        return ("no", "yes")[digit(body, 2)]
    if re.search("final score", text, re.IGNORECASE):
        return f"Final Score: {digit(body, 2) if '0 or 1' in text else 1 + 4 * digit(body, 2)}"
    if "onsistency" in text:
        return f"Consistency: {digit(body, 3)}\nRealism: 1\nAesthetic Quality: 2"
    return f"A picture. Score: {digit(body, 2)}"


def words_of(name, folder, url, *more):
    judge = ["--judge", f"openai:toy@{url}", "--out", str(folder / "out")]
    return ["evaluate", name, "--data", str(folder / "data"), *judge, *more]
