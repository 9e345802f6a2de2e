"""GenEval's evaluator on tiny checkpoints of the real classes: against transformers' own post-processing, plain
formulas, and the rule that reads its evaluations."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from evaluator_toys import picture, save_clip, save_mask2former
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from reverie.benchmarks import evaluations, evaluators
from reverie.benchmarks.evaluators.coco import coco_classes, coco_labels
from reverie.benchmarks.evaluators.colours import Colours, mentions_colour
from reverie.benchmarks.evaluators.detector import Instance, InstanceDetector, box_of
from reverie.benchmarks.geneval import COLOURS
from reverie.benchmarks.protocol import Sample
from reverie.models.image_text import ImageText


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("geneval")
    return {"detector": save_mask2former(root / "detector"), "clip": save_clip(root / "clip")}


@pytest.fixture(scope="module")
def detector(folders):
    return InstanceDetector.load(folders["detector"])


def test_finds_what_the_class_of_transformers_finds(detector):
    """Its post-processing works at 384 pixels: with a picture and an input of that size both must agree."""
    small = InstanceDetector(detector.model, detector.labels, short=384, long=384)
    shown = picture(1, 384, 384)
    pixels, inside = small.prepare(shown)
    assert inside == (384, 384)
    with torch.no_grad():
        out = detector.model(pixel_values=pixels[None])
    kind = transformers.models.mask2former.image_processing_pil_mask2former.Mask2FormerImageProcessorPil
    threshold = 0.05
    theirs = kind().post_process_instance_segmentation(
        out, threshold=threshold, target_sizes=[(384, 384)], return_binary_maps=True
    )[0]
    (ours,) = small.look([shown], threshold)
    wanted = {
        (detector.labels[info["label_id"]], round(info["score"], 5)): mask.bool().numpy()
        for info, mask in zip(theirs["segments_info"], theirs["segmentation"], strict=True)
    }
    found = {(one.label, round(one.score, 5)): one.mask for one in ours}
    assert len(ours) > 2
    assert set(wanted) <= set(found)  # theirs keeps as many as there are queries, ours 100
    for key, mask in wanted.items():
        assert (found[key] == mask).all()
    assert all(one.box == box_of(one.mask) for one in ours)


def test_a_detection_needs_more_than_the_threshold(detector):
    (loose,) = detector.look([picture(1)], 0.02)
    limit = sorted(one.score for one in loose)[len(loose) // 2]
    (strict,) = detector.look([picture(1)], limit)
    assert [(one.label, one.score) for one in strict] == [(o.label, o.score) for o in loose if o.score > limit]


def test_pictures_do_not_depend_on_their_neighbours(detector):
    shown = [picture(1), picture(2, 48, 64), picture(3), picture(4, 200, 40)]
    together = detector.look(shown, 0.05)
    for one, found in zip(shown, together, strict=True):
        (alone,) = detector.look([one], 0.05)
        assert [x.label for x in alone] == [x.label for x in found]
        assert np.allclose([x.score for x in alone], [x.score for x in found], atol=1e-5)
        assert all(x.mask.shape == (one.height, one.width) for x in found)


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=25, deadline=None)
def test_pictures_are_scaled_as_mmdetection_scales_them(wide, high):
    """Short side 800, unless the long side would pass 1333; padded to multiples of 32 with zeros."""
    small = InstanceDetector(None, {}, short=80, long=133)
    pixels, (h, w) = small.prepare(Image.new("RGB", (min(wide, 40 * high), min(high, 40 * wide)), (124, 116, 104)))
    size = (min(wide, 40 * high), min(high, 40 * wide))
    factor = min(133 / max(size), 80 / min(size))
    assert (h, w) == (max(1, int(size[1] * factor + 0.5)), max(1, int(size[0] * factor + 0.5)))
    assert pixels.shape[1] % 32 == pixels.shape[2] % 32 == 0
    assert pixels.shape[1] - h < 32
    assert pixels.shape[2] - w < 32
    assert not pixels[:, h:].any()
    assert not pixels[:, :, w:].any()
    inside = (np.array([124, 116, 104]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(pixels[:, :h, :w].mean((1, 2)), inside, atol=1e-4)


def test_scaling_reads_between_four_pixels():
    """Bilinear without smoothing, half-pixel centres: one output pixel by hand."""
    rows = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5
    small = InstanceDetector(None, {}, short=6, long=6, mean=(0, 0, 0), std=(1, 1, 1))
    pixels, _ = small.prepare(Image.fromarray(rows))
    place = (2 + 0.5) * 4 / 6 - 0.5  # of output pixel 2
    low, share = int(place), place - int(place)
    near = rows.astype(float)
    down = near[low] * (1 - share) + near[low + 1] * share
    value = down[low] * (1 - share) + down[low + 1] * share
    assert np.allclose(pixels[:, 2, 2] * 255, np.round(value), atol=1e-3)


def test_the_names_are_those_of_geneval():
    classes = coco_classes()
    assert len(classes) == len(set(classes)) == 80
    usual = [
        {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}.get(c, c) for c in classes
    ]
    assert coco_labels(dict(enumerate(usual))) == dict(enumerate(classes))
    assert coco_labels({i: f"LABEL_{i}" for i in range(80)}) == dict(enumerate(classes))
    old = ["sofa" if name == "couch" else "Person" if name == "person" else name for name in usual]
    assert coco_labels(dict(enumerate([*old, "sky-other-merged"]))) == dict(enumerate(classes))
    with pytest.raises(ValueError, match="does not know 1 of COCO's 80 classes, such as person"):
        coco_labels(dict(enumerate(usual[1:])))


def test_colours_are_the_mean_of_three_sentences(folders):
    """Against the plain formula over transformers' own towers."""
    clip = ImageText.load(folders["clip"])
    model, words = clip.model, clip.tokenizer
    shown = picture(5)
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:50] = True
    thing = Instance("computer mouse", box_of(mask), 0.9, mask)
    assert thing.box == (20, 10, 50, 30)
    cut = np.full((20, 30, 3), 0x99, np.uint8)
    cut[mask[10:30, 20:50]] = np.asarray(shown)[10:30, 20:50][mask[10:30, 20:50]]
    rows = []
    for colour in COLOURS:
        features = []
        for text in (f"a photo of a {colour} computer mouse", f"a photo of a {colour}-colored computer mouse",
                     f"a photo of a {colour} object"):  # fmt: skip
            one = model.get_text_features(
                **words([text], return_tensors="pt", return_token_type_ids=False)
            ).pooler_output
            features.append((one / one.norm()).detach())
        mean = torch.cat(features).mean(0)
        rows.append(mean / mean.norm())
    seen = model.get_image_features(clip.processor([Image.fromarray(cut)], return_tensors="pt")["pixel_values"])
    seen = seen.pooler_output[0].detach()
    logits = 100 * torch.stack(rows) @ (seen / seen.norm())
    assert np.allclose(Colours(clip).of("computer mouse"), torch.stack(rows), atol=1e-5)
    assert Colours(clip).read([shown], [[thing]]) == [[COLOURS[int(logits.argmax())]]]


def test_evaluations_go_through_the_rule(folders):
    evaluator = evaluators.for_benchmark("geneval", folders)
    assert "transformers" in evaluator.name
    assert str(folders["clip"]) in evaluator.name
    shown = [picture(seed) for seed in range(3)]
    things = evaluator.detector.look(shown)
    label = next(one.label for found in things for one in found)
    record = {"tag": "colors", "include": [{"class": label, "count": 1, "color": "red"}], "prompt": f"a red {label}"}
    sample = Sample("00000", record["prompt"], "colors", record, "00000")
    files = [f"00000/samples/{index:04d}.png" for index in range(3)]
    seen = evaluator.evaluate(files, [record["prompt"]] * 3, shown)
    assert [[d[0] for d in one.detections] for one in seen] == [[x.label for x in found] for found in things]
    results = evaluations.geneval([sample], {one.image: one for one in seen}, 3)
    assert [one.filename for one in results] == files
    back = [evaluations.Evaluation(**json.loads(json.dumps(vars(one)))) for one in seen]  # survives a JSON line
    assert evaluations.geneval([sample], {one.image: one for one in back}, 3) == results
    assert all(one.colours is None for one in evaluator.evaluate(files, [f"a photo of a {label}"] * 3, shown))


@pytest.mark.parametrize("name", ["geneval", "geneval-long"])
def test_colours_are_read_of_what_a_prompt_may_ask_for(folders, name):
    """Short prompts name things and colours as the records do; long ones may not, so there all is read."""
    evaluator = evaluators.for_benchmark(name, folders)
    shown = [picture(2)]
    label = evaluator.detector.look(shown)[0][0].label
    (seen,) = evaluator.evaluate(["x"], [f"a photo of a red {label}"], shown)
    labels = [one[0] for one in seen.detections]
    assert len(set(labels)) > 1
    named = {label} if name == "geneval" else set(labels)
    assert {key: len(colours) for key, colours in seen.colours.items()} == {key: labels.count(key) for key in named}
    assert {colour for colours in seen.colours.values() for colour in colours} <= set(COLOURS)


@pytest.mark.parametrize(
    ("prompt", "asked"), [("a photo of a red cup", True), ("a blue-colored vase", True), ("a cup, reddish", False)]
)
def test_only_prompts_with_a_colour_ask_for_one(prompt, asked):
    assert mentions_colour(prompt) is asked


def _spoil(folder, target, change):
    shutil.copytree(folder, target)
    change(target)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not a valid configuration"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "type 'bert' and cannot be the detector"),
        (lambda f: [p.unlink() for p in f.glob("*.safetensors")], "holds no weights"),
        (lambda f: _relabel(f, {"0": "cat", "1": "dog"}), "does not know 78 of COCO's 80 classes"),
    ],
)
def test_a_wrong_checkpoint_is_one_sentence_before_anything_loads(folders, tmp_path, change, message, monkeypatch):
    monkeypatch.setattr(transformers, "Mask2FormerForUniversalSegmentation", None)  # nothing may ask for it
    wrong = _spoil(folders["detector"], tmp_path / "wrong", change)
    with pytest.raises(ValueError, match=message):
        evaluators.cast("geneval", {"detector": wrong})


def _relabel(folder, names):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = names
    (folder / "config.json").write_text(json.dumps(config))


def test_damaged_and_partial_weights_are_refused(folders, tmp_path):
    cut = _spoil(folders["detector"], tmp_path / "cut", lambda f: (f / "model.safetensors").write_bytes(b"no"))
    with pytest.raises(ValueError, match=r"the weights of .* cannot be read"):
        InstanceDetector.load(cut)

    def drop(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("class_predictor.bias")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    with pytest.raises(ValueError, match=r"lacks 1 tensors of a Mask2Former.*class_predictor.bias"):
        InstanceDetector.load(_spoil(folders["detector"], tmp_path / "partial", drop))


def test_choices_are_checked():
    with pytest.raises(ValueError, match=r"geneval has no role 'detecter' \(did you mean"):
        evaluators.cast("geneval", {"detecter": "x"})
    with pytest.raises(ValueError, match="no folder nowhere for the detector"):
        evaluators.cast("geneval", {"detector": "nowhere"})
    with pytest.raises(ValueError, match="must be ROLE=NAME"):
        evaluators.choices_of(["detector"])
    assert evaluators.choices_of(["detector=a=b", "clip=c"]) == {"detector": "a=b", "clip": "c"}
    parts = {part.role: part for part in evaluators.cast("geneval")}
    assert parts["clip"].official
    assert parts["clip"].note is None
    assert "not comparable" in parts["detector"].note
