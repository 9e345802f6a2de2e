"""The scripts of speed/ at toy size: equal codes, and every number there. Times are not judged."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from reverie.models.registry import entries

SHOWO = entries()["atelier-showo"].folder
SPEED = Path(__file__).parent.parent / "speed"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED))

    def load(name: str) -> ModuleType:
        # By path: `janus` and `memory` are too common as names to be left behind in sys.modules.
        for other in (
            "twins",
            "memory",
            "janus",
            "group_norm",
            "parm",
            "twig",
            "blocks",
            "precision",
            "rl_memory",
            "rl_step",
            "dual_grpo",
        ):
            monkeypatch.delitem(sys.modules, other, raising=False)
        return importlib.import_module(name)

    return load


def test_transformers_and_ours_paint_equal_codes(script):
    janus = script("janus")
    theirs, ours = janus.equal_codes(janus.SHAPES["toy"], images=5)
    assert theirs.shape == (5, 16)
    assert theirs.unique().numel() > 5, "the toy must not paint one code only"
    assert torch.equal(theirs, ours)


def test_every_way_has_a_time(script):
    janus = script("janus")
    clock = iter(range(10**6)).__next__
    seconds = janus.measure(janus.SHAPES["toy"], torch.float32, images=2, timed=6, repeats=1, clock=clock)
    assert len(seconds) == 6
    assert all(value > 0 for value in seconds.values())


def test_timed_stretches_lie_in_the_image(script):
    pieces = script("janus").pieces
    assert pieces(16, 16) == [(0, 16)]
    assert pieces(16, 6) == [(0, 2), (7, 9), (14, 16)]


def test_bytes_of_a_token(script):
    janus, memory = script("janus"), sys.modules["memory"]
    model = janus.our_model(janus.SHAPES["toy"], torch.bfloat16)
    weights, cache = memory.token_bytes(model, rows=4, slots=10)
    assert cache == 2 * 2 * 4 * 10 * 64 * 2
    assert weights > 2 * sum(p.numel() for p in model.language_model.model.layers.parameters())


def test_normalisations_can_be_compared(script):
    norm = script("group_norm")
    module = torch.nn.GroupNorm(2, 4).bfloat16()
    assert norm.ratio(module, norm.pictures(4, 3, batch=1), repeats=4) > 0


def test_a_command_is_timed(script):
    wall, cpu = script("first_picture").run([sys.executable, "-c", "pass"])
    assert wall > 0
    assert cpu > 0


def test_the_harness_is_timed(script, tmp_path):
    found = script("harness").measure(100, 16, str(tmp_path / "out"))
    assert found["rows"] == 100
    assert all(value > 0 for value in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_the_batch(script, dtype):
    bits = script("batch_bits")
    assert bits.different(bits.SHAPES["toy"], dtype, codes=3) == {}


def test_parm_done_literally_keeps_the_same_candidates(script, tmp_path):
    from showo_toy import toy_showo
    from tiny import tiny_folder

    from reverie.models.showo_checkpoint import save_showo

    parm = script("parm")
    save_showo(*toy_showo(), tmp_path / "showo")
    judge = tiny_folder(tmp_path / "judge")
    clock, how = iter(range(10**6)).__next__, parm.Settings(first=1, written=2)
    prompts = parm.spread("atelier-geneval", 2)
    assert len(set(prompts)) == 2
    found = parm.measure(str(tmp_path / "showo"), str(judge), 3, prompts, 1, clock, how)
    assert 0 <= found["hopeful"] <= 1
    assert found["seconds"]["literal"] > found["seconds"]["ours"] > 0
    assert set(found["stages"]["literal"]) == {"painting", "decoding", "judging"}


def test_a_judge_in_proportion_stands_to_the_painter_as_the_published_one(script):
    from PIL import Image
    from torch.utils.flop_counter import FlopCounterMode

    import reverie
    from reverie.canvas import Conditions
    from reverie.judges import View
    from reverie.judges.load import judge_by_name

    parm, loaded = script("parm"), reverie.load("atelier-showo", device="cpu", dtype="float32")
    usual = loaded.generator(reverie.reason.Plan())
    painter = parm.LiteralShowo(loaded.model, loaded.tokenizer, guidance=usual.guidance, steps=usual.steps)
    judge = parm.in_proportion(judge_by_name("atelier-judge", "cpu"))
    view = View("two red apples", Image.new("RGB", (96, 96), "red"), 0.7)
    with torch.no_grad(), FlopCounterMode(display=False) as painting:
        painter.advance(painter.start(Conditions((view.prompt,)), [1]))
    with torch.no_grad(), FlopCounterMode(display=False) as asking:
        judge.vlm.write(judge.wording.conversation("clarity", view.prompt, view.picture), 1)
    # 13 TFLOP a question of LLaVA-OneVision 7B, 37 a picture of Show-o.
    assert asking.get_total_flops() / painting.get_total_flops() == pytest.approx(13 / 37, rel=0.1)


def test_training_from_stored_features_is_compared_with_the_literal_way(script, tmp_path):
    from t5_toy import t5_words, tiny_t5
    from vlm_toy import picture, toy_vlm

    from reverie.data.build_features import read_items

    for number in range(2):
        picture(number).save(tmp_path / f"{number}.png")
    clock = iter(range(10**6)).__next__
    found = script("align").compare(toy_vlm(), tiny_t5(), t5_words(), read_items(tmp_path), 2, 2, clock)
    assert found == {"stored": 4.0, "literal": 2.0, "ratio": 2.0}


def test_the_canvas_paints_what_calls_of_the_pipeline_paint(script):
    import diffusion_toy as toys

    editor, own = toys.qwen_image_edit(), {"guidance": 3.0, "steps": 2, "height": 32, "width": 32, "limit": 512}
    parts = {name: part for name, part in editor.components.items() if name != "processor"}
    qwen, clock = script("qwen"), iter(range(10**6)).__next__
    made = qwen.ways(toys.finished(toys.QwenImagePipeline(**parts)), editor, own | {"paints": True}, images=2)
    assert max(qwen.differences(made).values()) <= 1
    assert all(times == [1, 1] for times in qwen.measure(made, 2, clock).values())


@pytest.mark.parametrize("wording", [[], ["--own", "--guidance", "1"]])
def test_thinking_while_painting_equals_the_literal_way_and_has_a_time(script, tmp_path, wording):
    from tiny import tiny_folder

    twig, place = script("twig"), tiny_folder(tmp_path / "janus", context=8192)
    config = json.loads((place / "config.json").read_text())
    config["reverie"]["dialogue"] = "story"
    (place / "config.json").write_text(json.dumps(config))
    argv = ["--model", str(place), "--prompts", "3", "--checked", "3", "--tokens", "5", "--repeats", "1", *wording]
    found = twig.compare(twig.parse(argv))
    assert (found["equal"], found["of"]) == (3, 3)
    assert len(found["seconds"]) == 3
    assert all(value > 0 for value in found["seconds"].values())


def test_blocks_of_other_sizes_paint_and_write_the_same(script, tmp_path):
    from tiny import tiny_folder

    import reverie

    blocks = script("blocks")
    loaded = reverie.load(tiny_folder(tmp_path / "janus", context=8192), device="cpu")
    found = blocks.measure(loaded.model, loaded.tokenizer, {}, pictures=2, repeats=1, tokens=5)
    assert set(found) == {"usual", "fewer", "more", "both"}
    assert all(value > 0 for value in found.values())


@pytest.mark.skipif(SHOWO is None or not SHOWO.is_dir(), reason="no atelier-showo weights installed")
def test_both_types_are_timed_on_all_that_takes_long(script):
    task = SimpleNamespace(model=torch.nn.Linear(6, 4))
    task.batch = lambda step: torch.randn(3, 6)
    task.loss = lambda batch: (task.model(batch).square().mean(), {})
    found = script("precision").measure(task, images=1, repeats=1)
    assert set(found) == {"loss and gradients", "Muon", "1 pictures"}
    assert all(set(of) == {"float32", "bfloat16"} and min(of.values()) > 0 for of in found.values())
    assert task.model.weight.grad is not None


def test_memory_of_reinforcement_is_below_what_the_formula_says(script):
    memory = script("rl_memory")
    found = memory.measured("toy", segments=3)
    assert found["in chunks of 1"] < found["all at once"] / 20
    assert found["all at once"] < found["formula"] < 2 * found["all at once"]
    assert found["gradient, all at once"] == pytest.approx(found["gradient, in chunks of 1"], rel=1e-4)
    seven = memory.arithmetic(memory.PRO_7B, rank=16, images=8, chunk=2, text=200)
    assert seven["total"] == pytest.approx(sum(value for name, value in seven.items() if name != "total"))
    assert seven["total"] < 80


def test_a_whole_step_of_reinforcement_moves_the_adapters(script):
    found = script("rl_step").steps("toy", "cpu", rank=2, images=4, chunk=2, limit=6, count=2)
    assert found["step 1"]["gradient"] > 0
    assert found["step 1"]["text tokens"] <= 6
    assert found["roll-out 1"]["seconds"] < found["step 1"]["seconds"]


def test_a_dual_grpo_step_is_the_same_batched_and_literally(script):
    from diffusion_toy import qwen_image

    dual = script("dual_grpo")
    clocks = (iter(range(10**6)).__next__,)
    tree = dual.DualTree(thoughts=2, images=2, limit=4)
    flow = dual.FlowSampling(steps=3, guidance=2.0, height=32, width=32, window="random", size=1, high=2)
    found = dual.compare(qwen_image, "atelier", tree, flow, prompts=2, steps=1, clocks=clocks)
    assert max(found["gaps"].values()) < 1e-2
    assert found["ratio"] == [1.0]
