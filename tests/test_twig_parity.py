"""Thinking while painting against literal runs of the published script: every prompt, id, answer, code and decision.

The fixtures lie beside the repository (or where REVERIE_FIXTURES says); every case of the family is run.
"""

import functools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reverie.canvas import Work
from reverie.events import Finished, Verdict
from reverie.generators.janus import JanusPainter
from reverie.models.janus_checkpoint import load_janus
from reverie.reason import Plan, run
from reverie.thinkers import Thinker
from reverie.vlms.janus import JanusEyes

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
CASES = [
    (path.parent, case["id"])
    for path in sorted(ROOT.glob("**/cases.json"))
    if (about := json.loads(path.read_text("utf-8"))).get("family") == "twig"
    for case in about["cases"]
]


@functools.cache
def opened(folder: Path):
    cases = {case["id"]: case for case in json.loads((folder / "cases.json").read_text("utf-8"))["cases"]}
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    arrays = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    return cases, expected, *arrays, load_janus(folder / "checkpoint", dtype=torch.float32)


class Recorded:
    """A VLM that notes what it is asked, and answers from a script where there is one."""

    def __init__(self, eyes: JanusEyes, script: list[str] | None, log: list[dict]):
        self.eyes, self.script, self.log = eyes, list(script or ()), log
        self.scripted = script is not None

    def write(self, messages, max_new_tokens=512, temperature=0.0, seed=0, on_text=None):
        (message,) = messages
        answer = self.script.pop(0) if self.scripted else self.eyes.write(messages, max_new_tokens)
        self.log.append({"ids": self.eyes.ids(messages), "message": message, "answer": answer})
        return answer

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        return [self.write(messages, max_new_tokens) for messages in conversations]


class Noting(JanusPainter):
    """A painter that notes what it paints and shows."""

    log: list[dict]

    def advance_together(self, canvases, to):
        result = super().advance_together(canvases, to)
        for old, new in zip(canvases, result, strict=True):
            ids = self.tokenizer.painting_ids(new.conditions.prompts[0])
            self.log.append({"ids": ids, "start": old.step, "tokens": new.tokens[0, old.step : new.step].tolist()})
        return result

    def preview(self, canvas):
        (shown,) = super().preview(canvas)
        self.log.append({"codes": canvas.tokens[0].tolist(), "shown": shown})
        return [shown]


@pytest.mark.parametrize(("folder", "name"), CASES or [(None, "none")], ids=[name for _, name in CASES] or ["none"])
def test_the_published_procedure(folder, name):
    if folder is None:
        pytest.skip(f"no fixtures of Thinking-while-Generating in {ROOT}; set REVERIE_FIXTURES to their folder")
    cases, expected, inputs, arrays, (model, tokenizer) = opened(folder)
    case, truth = cases[name], expected[name]
    log, guided = [], []
    draws = iter(inputs[f"{name}/exp_draws"]) if case["decode"] == "sampled" else None

    def picker(logits, uniforms, temperature):
        guided.append(logits[0].numpy())
        if draws is None:
            return logits.argmax(-1)
        return ((logits / temperature).softmax(-1) / torch.from_numpy(next(draws))).argmax(-1)

    side = round(case["image_token_num"] ** 0.5)
    model.config = replace(model.config, grid=side)
    words = tokenizer.as_published_for_painting()
    painter = Noting(model, words, guidance=case["cfg_weight"], temperature=case["temperature"], picker=picker)
    painter.log = log
    vlm = Recorded(JanusEyes(model, tokenizer), case["scripted"], log)
    plan = Plan(
        think="during", regions=case["num_layers"], reflect=1, threshold=case["theta"], official=True,
        thought_tokens=case["max_new_tokens"],
    )  # fmt: skip
    thinker = Thinker(vlm, "instruct", lambda text: None, Work())
    events = list(run(painter, thinker, plan, [case["prompt"]], [case["seed"] or 0]))

    compare(truth, arrays, name, log, events, vlm.eyes)
    assert np.abs(np.stack(guided) - arrays[f"{name}/guided_logits"]).max() <= 5e-4
    assert not vlm.script


def compare(truth, arrays, name, log, events, eyes):
    """What was noted, event by event; pictures may differ by 1, logits by 1e-4."""
    shown = arrays[f"{name}/canvases"].astype(np.int16)
    verdicts = iter([event for event in events if isinstance(event, Verdict)])
    assert [kind_of(entry) for entry in log] == [
        {"thought": "text", "critique": "text"}.get(event["type"], event["type"]) for event in truth["events"]
    ]
    for event, entry in zip(truth["events"], log, strict=True):
        if event["type"] == "paint":
            assert entry["ids"] == event["prompt_ids"], event["prompt"]
            assert (entry["start"], entry["tokens"]) == (event["start"], event["tokens"])
        elif event["type"] == "canvas":
            assert entry["codes"] == event["codes"]
            assert np.abs(entry["shown"] - shown[event["canvas"]]).max() <= 1
        else:
            assert entry["ids"] == event["prompt_ids"], event["prompt"]
            assert entry["answer"] == event["answer"]
            assert len(entry["message"].images) == (event["canvas"] is not None)
            for picture in entry["message"].images:
                assert np.abs(np.asarray(picture) - shown[event["canvas"]]).max() <= 1
            if event.get("text_call") is not None:
                # With the very picture of the fixture: a byte more or less shows in the fourth decimal.
                pictures = [
                    Image.fromarray(arrays[f"{name}/canvases"][event["canvas"]]) for _ in entry["message"].images
                ]
                logits = eyes.logits([replace(entry["message"], images=pictures)])[-1]
                first = arrays[f"{name}/text_first_logits"][event["text_call"]]
                assert np.abs(logits.numpy() - first).max() <= 1e-4
        if event["type"] == "critique":
            assert next(verdicts).accepted == event["accept"]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert np.abs(np.asarray(finished.picture) - shown[truth["final_canvas"]]).max() <= 1
    kept = [event["tokens"] for event in truth["events"] if event["type"] == "paint" and event["kept"]]
    assert [code for region in kept for code in region] == truth["final_tokens"]
    told = truth["description_file"].split("User: ")[-1].removesuffix("\n\n")
    assert finished.recipe["rewritten"].replace("  ", "") == told.replace("  ", "")


def kind_of(entry: dict) -> str:
    return "text" if "answer" in entry else "canvas" if "codes" in entry else "paint"
