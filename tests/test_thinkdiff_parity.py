"""ThinkDiff against numbers made with the authors' code: both variants at tiny sizes, aligners trained a few steps.

The fixtures lie beside the repository (or where REVERIE_FIXTURES says); every folder of the family is run.
"""

import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from reverie.data.webdataset import TarFeatures
from reverie.models.aligner import Aligner, AlignerConfig, load_aligner
from reverie.models.t5 import decode_states, load_t5, read_back
from reverie.models.thinkdiff import choose
from reverie.models.vision_tokens import clip_pixels, image_tokens, load_blip2
from reverie.training.align import AlignConfig, AlignTask, Masking, fed_and_said
from reverie.training.align_clip import ClipAlignTask, clean_caption, split_caption
from reverie.training.loop import LoopConfig, learning_rate, optimizers, train

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
FOLDERS = [
    path.parent
    for path in sorted(ROOT.glob("**/cases.json"))
    if json.loads(path.read_text("utf-8")).get("family") == "thinkdiff"
]
VARIANTS = ("lvlm", "clip")


class Fixture:
    def __init__(self, folder: Path, scratch: Path):
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text("utf-8"))
        self.inputs, self.expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
        shards = scratch / "shards"
        shutil.copytree(folder / "lvlm" / "shards", shards)
        self.tars = sorted(shards.glob("*.tar"))
        self.answers = AutoTokenizer.from_pretrained(folder / "lvlm" / "vlm")
        self.tower, self.t5_clip, self.words_clip = load_blip2(folder / "clip" / "blip2")
        self.t5_lvlm, self.words_lvlm = load_t5(folder / "lvlm" / "t5", encoder=False)

    def close(self, name: str, value: Tensor | float, tolerance: float = 1e-4) -> None:
        value = torch.as_tensor(value).detach().numpy()
        assert value.shape == self.expected[name].shape, name
        assert np.abs(value - self.expected[name]).max(initial=0) <= tolerance, name

    def same(self, name: str, value: Tensor) -> None:
        np.testing.assert_array_equal(value.numpy(), self.expected[name], err_msg=name)

    def aligner(self, variant: str, name: str | None = None) -> Aligner:
        return load_aligner(self.folder / variant / (name or f"thinkdiff_{variant}.pth"))

    def source(self, kind: str) -> TarFeatures:
        return TarFeatures(self.tars, kind)

    def lvlm_task(self, aligner: Aligner, kind: str = "generated", masking: Masking | None = None) -> AlignTask:
        config = AlignConfig(text=self.cases["lvlm"]["settings"]["max_txt_len"])
        masking = masking or Masking()
        return AlignTask(aligner, self.t5_lvlm, self.words_lvlm, self.source(kind), self.answers, config, masking)

    def clip_task(self, aligner: Aligner) -> ClipAlignTask:
        settings = self.cases["clip"]["settings"]
        captions = [(Path(), caption) for caption in self.cases["clip"]["captions"]]
        config, factor = AlignConfig(text=settings["max_txt_len"]), settings["vision_downsample_factor"]
        return ClipAlignTask(aligner, self.tower, self.t5_clip, self.words_clip, captions, config, factor)

    def start(self, variant: str) -> Aligner:
        names = [name for name in self.inputs.files if name.startswith(f"{variant}/start/")]
        weights = {name.removeprefix(f"{variant}/start/"): torch.from_numpy(self.inputs[name]) for name in names}
        target, source = weights["mm_projector.0.weight"].shape
        return Aligner(AlignerConfig(source, target)).take(weights)


@pytest.fixture(scope="module", params=FOLDERS or [None], ids=[folder.name for folder in FOLDERS] or ["none"])
def fixture(request, tmp_path_factory) -> Fixture:
    if request.param is None:
        pytest.skip(f"no ThinkDiff fixtures in {ROOT}; set REVERIE_FIXTURES to their folder")
    return Fixture(request.param, tmp_path_factory.mktemp("thinkdiff"))


def masking_of(settings: dict) -> Masking:
    """The authors' collating options as ours; what is not cut at random is fed and said whole."""
    if settings.get("random_split_output_embed"):
        return Masking(longest=settings["output_embed_max_split_len"], limit=settings.get("input_embed_max_len", 10**6))
    return Masking(whole=1.0, limit=settings.get("output_embed_max_len", settings.get("input_embed_max_len")))


class Draws(random.Random):
    """A stream whose randint calls are written down; `random` must not be asked, or the stream would shift."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.seen: list[list[int]] = []

    def randint(self, low: int, high: int) -> int:
        self.seen.append([low, high, super().randint(low, high)])
        return self.seen[-1][2]


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoints_of_the_authors_load(fixture, variant):
    small, full = fixture.aligner(variant), fixture.aligner(variant, "checkpoint_full.pth")
    saved = torch.load(fixture.folder / variant / f"thinkdiff_{variant}.pth", weights_only=True)["model"]
    assert set(saved) == set(fixture.cases[variant]["checkpoint_keys"])
    assert set(small.weights()) == {key for key in saved if key.startswith("mm_projector.")}
    for key, tensor in small.weights().items():
        assert torch.equal(tensor, saved[key])
        assert torch.equal(tensor, full.weights()[key])


@pytest.mark.parametrize("variant", VARIANTS)
def test_initialisation(fixture, variant):
    t5 = fixture.t5_lvlm if variant == "lvlm" else fixture.t5_clip
    norm = t5.encoder.final_layer_norm.weight
    fixture.close(f"{variant}/start/t5_encoder_final_norm", norm, 0)
    theirs = fixture.start(variant)
    assert torch.equal(theirs[3].weight, norm)
    torch.manual_seed(0)
    std = None if variant == "lvlm" else 0.02
    ours = Aligner(theirs.config).initialise(norm, std)
    assert torch.equal(ours[3].weight, norm)
    assert ours[3].weight is not norm
    for index in (0, 2):
        mine, other = ours[index], theirs[index]
        bound = 1 / math.sqrt(mine.in_features)
        if variant == "lvlm":
            for layer in (mine, other):
                assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
                assert 0 < float(layer.bias.detach().abs().max()) <= bound
        else:
            for layer in (mine, other):
                assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
                assert not layer.bias.detach().any()


def test_every_projector_type(fixture):
    for case in fixture.cases["aligner_types"]:
        module, name = case["module"], case["type"]
        if case["keys"] is None:
            with pytest.raises(ValueError, match="no projector type"):
                AlignerConfig.from_type(name, 10, 12, module)
            continue
        base = f"aligner_types/{module}/{name}"
        x = torch.from_numpy(fixture.inputs[f"{base}/x"])
        width = fixture.expected[f"{base}/y"].shape[-1]
        weights = {key: torch.from_numpy(fixture.inputs[f"{base}/weights/{key}"]) for key in case["keys"]}
        aligner = Aligner(AlignerConfig.from_type(name, x.shape[-1], width, module)).take(weights)
        assert list(aligner.weights()) == case["keys"]
        fixture.close(f"{base}/y", aligner(x))


def test_stored_features(fixture):
    for kind, name in (("generated", "output"), ("input", "input")):
        source = fixture.source(kind)
        assert [source[i].key for i in range(len(source))] == [s["key"] for s in fixture.cases["lvlm"]["samples"]]
        for index, told in enumerate(fixture.cases["lvlm"]["samples"]):
            sample = source[index]
            assert list(sample.ids) == told["output_token_ids"]
            assert source.tokens(index) == len(sample.ids)
            assert sample.text == told["text"]
            wanted = fixture.inputs[f"lvlm/features/{told['key']}/{name}"]
            np.testing.assert_array_equal(sample.features.float().numpy(), wanted)


def collated(fixture, task: AlignTask, case: dict, rng: random.Random) -> dict[str, Tensor]:
    keys = [sample["key"] for sample in fixture.cases["lvlm"]["samples"]]
    samples = [task.source[keys.index(key)] for key in case["samples"]]
    pairs = [fed_and_said(sample, task.source.kind, task.masking, rng) for sample in samples]
    if "target_token_ids" in case:
        if not (case["settings"]["use_input_embed"] and case["settings"]["use_output_embed"]):
            assert [list(said) for _, said in pairs] == case["target_token_ids"]
        pairs = [(fed, said) for (fed, _), said in zip(pairs, case["target_token_ids"], strict=True)]
    return task.collate(pairs)


def test_lvlm_cases(fixture):
    for case in fixture.cases["lvlm"]["cases"]:
        base, fed = f"lvlm/{case['id']}", case["fed"]
        masking = masking_of(case["settings"])
        rng = Draws(case["python_seed"])
        aligner = fixture.aligner("lvlm").requires_grad_(True)
        task = fixture.lvlm_task(aligner, "generated" if fed == "output_embed" else "input", masking)
        batch = collated(fixture, task, case, rng)
        if fed == "output_embed" and case["draws"]:
            assert rng.seen == case["draws"]
        elif case["draws"]:  # what the authors draw although the other features are fed
            ids = {sample["key"]: sample["output_token_ids"] for sample in fixture.cases["lvlm"]["samples"]}
            cuts = [masking.cut(len(ids[key]), rng)[1] for key in case["samples"]]
            assert rng.seen == case["draws"]
            pairs = zip(cuts, case["samples"], strict=True)
            assert [ids[key][cut] for cut, key in pairs] == case["target_token_ids"]
        texts = fixture.answers.batch_decode(case["target_token_ids"], skip_special_tokens=True)
        assert texts == case["target_texts"]
        fixture.close(f"{base}/{fed}", batch["features"].float(), 0)
        fixture.same(f"{base}/{fed}_mask", batch["mask"])
        fixture.same(f"{base}/labels", batch["labels"])
        fixture.same(f"{base}/decoder_attention_mask", batch["label_mask"])
        memory = aligner(batch["features"].float())
        fixture.close(f"{base}/aligned", memory)
        task.t5.eval()
        states = decode_states(task.t5, memory, batch["mask"], batch["labels"], batch["label_mask"])
        fixture.close(f"{base}/logits", task.t5.lm_head(states))
        loss, row = task.loss(batch)
        fixture.close(f"{base}/loss", loss)
        assert row["scale"] > 0
        loss.backward()
        for key, parameter in zip(aligner.weights(), aligner.parameters(), strict=True):
            fixture.close(f"{base}/grad/{key}", parameter.grad)
        assert all(p.grad is None and not p.requires_grad for p in task.t5.parameters())


def test_clip_cases(fixture):
    pixels = torch.from_numpy(fixture.inputs["clip/pixel_values"])
    captions = fixture.cases["clip"]["captions"]
    for case in fixture.cases["clip"]["cases"]:
        base, rng = f"clip/{case['id']}", Draws(case["python_seed"])
        aligner = fixture.aligner("clip").requires_grad_(True)
        task = fixture.clip_task(aligner)
        task.t5.eval()
        parts = [split_caption(captions[index], rng) for index in case["captions"]]
        assert rng.seen == case["draws"]
        assert [list(part) for part in parts] == case["parts"]
        batch = task.collate(pixels[case["captions"]], parts)
        fixture.same(f"{base}/prefix_input_ids", batch["given"])
        fixture.same(f"{base}/prefix_attention_mask", batch["given_mask"])
        fixture.same(f"{base}/labels", batch["labels"])
        fixture.same(f"{base}/decoder_attention_mask", batch["label_mask"])
        memory, mask = task.memory(batch)
        fixture.close(f"{base}/memory", memory)
        fixture.same(f"{base}/memory_mask", mask)
        states = decode_states(task.t5, memory, mask, batch["labels"], batch["label_mask"])
        fixture.close(f"{base}/logits", task.t5.lm_head(states))
        loss, _ = task.loss(batch)
        fixture.close(f"{base}/loss", loss)
        loss.backward()
        for key, parameter in zip(aligner.weights(), aligner.parameters(), strict=True):
            fixture.close(f"{base}/grad/{key}", parameter.grad)


def test_tower_pooling_and_pictures(fixture):
    hidden = fixture.expected["clip/vision_hidden"]
    pixels = torch.from_numpy(fixture.inputs["clip/pixel_values"])[: len(hidden)]
    fixture.close("clip/vision_hidden", image_tokens(fixture.tower, pixels, None))
    aligner = fixture.aligner("clip")
    for name in fixture.expected.files:
        if name.startswith("clip/image_tokens/factor_") and name.endswith("/pooled"):
            said = name.split("factor_")[1].split("/")[0]
            pooled = image_tokens(fixture.tower, pixels, None if said == "None" else int(said))
            fixture.close(name, pooled)
            fixture.close(name.replace("pooled", "aligned"), aligner(pooled))
    for path in sorted((fixture.folder / "clip" / "images").iterdir()):
        ready = clip_pixels(Image.open(path), fixture.cases["clip"]["settings"]["image_size"])
        for use in ("train", "inference"):
            # One 8-bit step: Pillow rounds a bicubic resize differently from release to release.
            fixture.close(f"clip/preprocess/{path.stem}/{use}", ready, 0.0153)


def test_captions(fixture):
    for raw, cleaned in fixture.cases["clip"]["caption_cleaning"]:
        assert clean_caption(raw) == cleaned


def test_the_t5_reads_aligned_answers(fixture):
    told = fixture.cases["lvlm"]["t5_reading"]
    source, aligner = fixture.source("generated"), fixture.aligner("lvlm")
    keys = [sample["key"] for sample in fixture.cases["lvlm"]["samples"]]
    for run in told["runs"]:
        features = source[keys.index(run["sample"])].features.float()
        ids = read_back(fixture.t5_lvlm, aligner(features)[None], limit=told["max_new_tokens"])
        fixture.same(f"lvlm/t5_reading/{run['sample']}/tokens", ids[0])
        assert fixture.words_lvlm.decode(ids[0], skip_special_tokens=True) == run["text"]


def test_every_choice_of_features(fixture):
    told, aligner = fixture.cases["lvlm"]["inference"], fixture.aligner("lvlm")
    generated, asked = (
        torch.from_numpy(fixture.inputs[f"lvlm/features/{told['sample']}/{name}"]) for name in ("output", "input")
    )
    assert (len(generated), len(asked)) == (told["output_length"], told["input_length"])
    names = {
        "output_embed": "generated", "input_embed": "input", "input_no_system": "input-without-system", "both": "both",
    }  # fmt: skip
    for theirs, ours in names.items():
        fixture.close(f"lvlm/inference/{theirs}", aligner(choose(generated, asked, ours)))


class Given:
    """A task whose batches are listed, instead of drawn."""

    def __init__(self, task, batches: list[dict[str, Tensor]]):
        self.task, self.model, self.batches = task, task.model, batches

    def batch(self, step: int) -> dict[str, Tensor]:
        return self.batches[step]

    def loss(self, batch):
        return self.task.loss(batch)


def listed(fixture, variant: str, task) -> list[dict[str, Tensor]]:
    told = fixture.cases[variant]["training"]
    if variant == "lvlm":
        batches = []
        for case in told["batches"]:
            rng = Draws(case["python_seed"])
            batches.append(collated(fixture, task, case, rng))
            assert rng.seen == case["draws"]
        return batches
    pixels, rng = torch.from_numpy(fixture.inputs["clip/pixel_values"]), Draws(told["python_seed_once"])
    batches = []
    for case in told["batches"]:
        parts = [split_caption(fixture.cases["clip"]["captions"][index], rng) for index in case["captions"]]
        batches.append(task.collate(pixels[case["captions"]], parts))
    assert rng.seen == [draw for case in told["batches"] for draw in case["draws"] if draw]
    return batches


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_runs_of_the_authors(fixture, variant, tmp_path):
    """Their schedule, their optimizer, through our loop: every loss and rate, and the weights at the end."""
    told = fixture.cases[variant]["training"]
    values, steps = told["settings"], len(told["batches"])
    config = LoopConfig(
        steps=steps, lr=values["init_lr"], betas=tuple(told["betas"]), eps=told["eps"],
        weight_decay=values["weight_decay"], decay_vectors=False, clip=math.inf, ema=0.0, precision="no", log_every=1,
        schedule="cosine", warmup=values["warmup_steps"] / steps, first=values["warmup_lr"] / values["init_lr"],
        final=values["min_lr"] / values["init_lr"],
        wave=values["max_epoch"] * values["iters_per_epoch"] / steps,
    )  # fmt: skip
    rates = [config.lr * learning_rate(config, step / steps) for step in range(steps)]
    np.testing.assert_allclose(rates, fixture.expected[f"{variant}/training/lrs"], rtol=1e-9)
    aligner = fixture.start(variant)
    names = {id(p): key for key, p in zip(aligner.weights(), aligner.parameters(), strict=True)}
    groups = [
        {"weight_decay": group["weight_decay"], "params": [names[id(p)] for p in group["params"]]}
        for opt in optimizers(aligner, config)
        for group in opt.param_groups
    ]
    assert groups == told["parameter_groups"]
    task = fixture.lvlm_task(aligner) if variant == "lvlm" else fixture.clip_task(aligner)
    trained = train(Given(task, listed(fixture, variant, task)), config, tmp_path)
    assert isinstance(trained, Aligner)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["loss"] for row in rows], fixture.expected[f"{variant}/training/losses"], atol=1e-3)
    for key, tensor in fixture.aligner(variant).weights().items():
        assert (trained.weights()[key] - tensor).abs().max() <= 1e-3, key
