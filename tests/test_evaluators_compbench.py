"""T2I-CompBench's evaluators on tiny checkpoints of the real classes, against transformers' own post-processing and
plain formulas, and through the rules of every category."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluator_toys import picture, save_blip, save_clip, save_dpt, save_owlv2, save_tagger, save_yolos
from hypothesis import given
from hypothesis import strategies as st

from reverie.benchmarks import compbench, compbench_rules, evaluations, evaluators
from reverie.benchmarks.evaluators.boxes import BoxDetector, distinct, frame
from reverie.benchmarks.evaluators.depth import Depth
from reverie.benchmarks.evaluators.tagger import Tagger
from reverie.benchmarks.evaluators.vqa import BlipVQA
from reverie.benchmarks.protocol import Sample
from reverie.models.image_text import ImageText

QUESTIONS = ["a red cat?", "two of the dog?", "the blue ball?"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("compbench")
    return {
        "vqa": save_blip(root / "vqa"),
        "clip": save_clip(root / "clip"),
        "depth": save_dpt(root / "depth"),
        "detector": save_owlv2(root / "owlv2"),
        "tagger": save_tagger(root / "tagger"),
        "known": save_yolos(root / "yolos"),
    }


# ---------------------------------------------------------------------------------------------------- BLIP


def test_blip_says_yes_as_its_own_generation_would_begin(folders):
    vqa = BlipVQA.load(folders["vqa"])
    shown = picture(1)
    pixels = vqa.processor([shown], return_tensors="pt")["pixel_values"]
    (ours,) = vqa.answers([shown], [QUESTIONS])
    assert len(set(ours)) == 3
    for question, found in zip(QUESTIONS, ours, strict=True):
        ids = vqa.tokenizer([question], return_tensors="pt")["input_ids"]
        assert ids[0, 0] == vqa.tokenizer.cls_token_id
        ids[:, 0] = vqa.model.config.text_config.vocab_size - 1  # [ENC], the last word of BLIP's vocabulary
        how = {"max_new_tokens": 1, "do_sample": False, "num_beams": 1}
        said = vqa.model.generate(ids, pixels, output_logits=True, return_dict_in_generate=True, **how)
        chances = said.logits[0][0].softmax(-1)
        yes, no = chances[4], chances[5]
        assert found == pytest.approx(float(yes / (yes + no)), abs=1e-5)


def test_a_picture_is_looked_at_once_for_all_its_questions(folders):
    vqa = BlipVQA.load(folders["vqa"])
    vqa.batch = 2
    shown = [picture(seed) for seed in range(3)]
    seen = []
    vqa.model.vision_model.register_forward_hook(lambda module, inputs, out: seen.append(len(out[0])))
    together = vqa.answers(shown, [QUESTIONS, [], QUESTIONS[:1]])
    assert sum(seen) == 2
    alone = [[vqa.answers([shown[i]], [[q]])[0][0] for q in row] for i, row in ((0, QUESTIONS), (2, QUESTIONS[:1]))]
    assert together[1] == []
    assert np.allclose(together[0], alone[0], atol=1e-5)
    assert np.allclose(together[2], alone[1], atol=1e-5)


def test_blip_looks_at_larger_pictures_than_it_has_positions_for(folders, tmp_path):
    small, large = BlipVQA.load(folders["vqa"]), BlipVQA.load(save_blip(tmp_path / "large", side=48))
    assert [len(states) for states in (small.look([picture()])[0], large.look([picture()])[0])] == [17, 37]
    assert large.look([]) == []


# ------------------------------------------------------------------------------------------------ detectors


def test_an_open_detector_finds_what_its_class_finds(folders):
    found = BoxDetector.load(folders["detector"])
    assert found.told
    shown = picture(3, 60, 40)
    words = found.tokenizer(
        ["a photo of a cat", "a photo of a dog"], padding="max_length", max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        pixels = found.processor([shown], return_tensors="pt")["pixel_values"]
        out = found.model(input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels)
    theirs = found.processor.post_process_object_detection(out, threshold=0.5, target_sizes=[(40, 60)])[0]
    names = [["cat", "dog"][kind] for kind in theirs["labels"]]
    boxes = (theirs["boxes"] * 479 / 40).tolist()
    wanted = sorted(zip(names, boxes, theirs["scores"].tolist(), strict=True), key=lambda one: -one[2])
    (ours,) = found.look([shown], [["cat", "dog", "cat"]])
    assert ours
    kept = distinct(wanted)
    assert [one[0] for one in ours] == [one[0] for one in kept]
    assert np.allclose([one[2] for one in ours], [one[2] for one in kept], atol=1e-5)
    assert np.allclose(
        [one[1] for one in ours], [one[1] for one in kept], atol=1
    )  # the frame is 718.5 wide, in pixels 718


def test_an_open_detector_does_not_mix_up_what_each_picture_is_asked(folders):
    found = BoxDetector.load(folders["detector"])
    shown = [picture(0), picture(1), picture(2, 40, 60), picture(3)]
    names = [["cat", "dog", "bench"], ["bench"], [], ["dog"]]
    together = found.look(shown, names)
    for one, some, row in zip(shown, names, together, strict=True):
        (alone,) = found.look([one], [some])
        assert [x[0] for x in alone] == [x[0] for x in row]
        assert np.allclose([x[2] for x in alone], [x[2] for x in row], atol=1e-5)
        assert {x[0] for x in row} <= set(some)
    assert any(together)


def test_a_detector_with_classes_says_all_that_it_sees(folders):
    found = BoxDetector.load(folders["known"])
    assert not found.told
    shown = picture(0, 64, 64)
    with torch.no_grad():
        out = found.model(pixel_values=found.processor([shown], return_tensors="pt")["pixel_values"])
    chances, kinds = out.logits[0].softmax(-1)[:, :-1].max(-1)
    middle, size = out.pred_boxes[0, :, :2], out.pred_boxes[0, :, 2:]
    corners = torch.cat([middle - size / 2, middle + size / 2], 1) * 479
    wanted = [
        (["cat", "dog", "bench"][kinds[place]], corners[place].tolist(), float(chances[place]))
        for place in chances.argsort(descending=True)
        if chances[place] > 0.3
    ]
    (ours,) = found.look([shown], [[]])
    assert len(ours) > 1
    assert [one[0] for one in ours] == [one[0] for one in wanted]
    assert np.allclose([one[1] for one in ours], [one[1] for one in wanted], atol=1e-2)
    assert np.allclose([one[2] for one in ours], [one[2] for one in wanted], atol=1e-5)


BOX = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


@given(st.lists(st.tuples(st.sampled_from("ab"), BOX), max_size=12))
def test_one_thing_is_counted_once(found):
    ranked = [(name, box, 1 - place / 20) for place, (name, box) in enumerate(found)]
    kept = distinct(ranked)
    near = [(a, b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
    assert all(a[0] != b[0] or compbench_rules.iou(a[1], b[1]) <= 0.5 for a, b in near)
    for one in ranked:  # whoever is left out lies on a better one that stayed
        better = [two for two in kept if two[0] == one[0] and two[2] >= one[2]]
        assert one in kept or any(compbench_rules.iou(one[1], two[1]) > 0.5 for two in better)
    assert distinct(kept) == kept


@pytest.mark.parametrize(
    ("size", "wanted"), [((512, 512), (479, 479)), ((1024, 512), (958, 479)), ((3, 9), (479, 1437))]
)
def test_boxes_come_in_the_frame_of_unidet(size, wanted):
    assert frame(size) == wanted


# --------------------------------------------------------------------------------------------------- depth


def test_depth_is_that_of_the_class_with_what_is_near_on_top(folders):
    depth = Depth.load(folders["depth"])
    shown = picture(2, 60, 40)
    with torch.no_grad():
        out = depth.model(pixel_values=depth.processor([shown], return_tensors="pt")["pixel_values"])
    theirs = depth.processor.post_process_depth_estimation(out, [(479, 718)])[0]["predicted_depth"].numpy()
    (ours,) = depth.maps([shown])
    assert ours.shape == (479, 718)
    assert np.allclose(ours, (theirs - theirs.min()) / np.ptp(theirs), atol=1e-5)
    depth.model.config.model_type, kind = "glpn", depth.model.config.model_type
    turned = Depth(depth.model, depth.processor)  # a model that predicts distances
    depth.model.config.model_type = kind
    assert np.allclose(turned.maps([shown])[0], 1 - ours, atol=1e-5)


# ---------------------------------------------------------------------------------------------- the whole


def test_the_tagger_reads_words_and_phrases(folders):
    words = Tagger.load(str(folders["tagger"])).words("a red cat and a dog")
    assert words.tokens == (
        ("a", "DET"), ("red", "ADJ"), ("cat", "NOUN"), ("and", "CCONJ"), ("a", "DET"), ("dog", "NOUN"),
    )  # fmt: skip
    assert words.noun_chunks == ("a red cat", "a dog")
    assert words.without_adjectives() == "a cat and a dog"


@pytest.mark.parametrize(
    ("prompt", "category", "names"),
    [
        ("a cat on the left of a dog", "spatial", ["cat", "dog"]),
        ("a dog in front of a bench", "3d_spatial", ["dog", "bench"]),
        ("two cats and three dogs", "numeracy", ["cat", "dog"]),
    ],
)
def test_detectors_are_told_what_the_rule_looks_for(folders, prompt, category, names):
    chosen = {role: folders[role] for role in evaluators.roles(f"t2i-compbench-{category}")}
    table = compbench_rules.noun_table(["cat - cats", "dog - dogs"])
    evaluator = evaluators.for_benchmark(f"t2i-compbench-{category}", chosen, nouns=table)
    assert evaluator.names(evaluator.parts["tagger"].words(prompt)) == names


@pytest.mark.parametrize("category", compbench.CATEGORIES)
def test_every_category_is_scored(folders, category):
    prompt = {
        "spatial": "a cat on the left of a dog", "3d_spatial": "a dog in front of a bench",
        "numeracy": "two cats and three dogs", "complex": "a red cat and a dog",
    }.get(category, "a blue bench and a red ball")  # fmt: skip
    name = f"t2i-compbench-{category}"
    chosen = {role: folders[role] for role in evaluators.roles(name)}
    table = compbench_rules.noun_table(["cat - cats", "dog - dogs"])
    evaluator = evaluators.for_benchmark(name, chosen, nouns=table)
    sample = Sample(category, prompt, category, {"prompt": prompt, "number": 0}, prompt)
    files = [compbench.file(sample, index, 2) for index in range(2)]
    shown = [picture(1), picture(2)]
    seen = evaluator.evaluate(files, [prompt, prompt], shown)
    parts = {"spatial": (), "action": (prompt,)}
    scores = evaluations.compbench(category, [sample], {one.image: one for one in seen}, 2, nouns=table, parts=parts)[
        prompt
    ]
    assert len(scores) == 2
    assert all(score is not None for score in scores)
    if category in ("color", "shape", "texture"):
        asked = ["a blue bench?", "a red ball?"]
        answers = BlipVQA.load(folders["vqa"]).answers(shown, [asked, asked])
        wanted = [float(compbench_rules.attribute_score([round(value, 4) for value in row])) for row in answers]
        assert scores == pytest.approx(wanted, abs=2e-4)
    if category == "non_spatial":
        assert scores == pytest.approx(ImageText.load(folders["clip"]).cosines([prompt] * 2, shown), abs=1e-5)
    if category == "complex":
        cosines = ImageText.load(folders["clip"]).cosines(["a cat and a dog"] * 2, shown)
        assert [one.clip for one in seen] == pytest.approx(cosines, abs=1e-5)


def test_models_are_loaded_once_for_all_categories(folders):
    chosen = {"tagger": folders["tagger"], "vqa": folders["vqa"]}
    first, second = (evaluators.for_benchmark(f"t2i-compbench-{one}", chosen) for one in ("color", "shape"))
    assert first.parts["vqa"] is second.parts["vqa"]


def test_the_cosine_is_that_of_the_class(folders):
    clip = ImageText.load(folders["clip"])
    clip.batch = 2
    shown = [picture(seed) for seed in range(5)]
    shown.append(shown[0])
    texts = ["a cat", "a dog", "a cat", "x" * 200, "", "a dog"]
    ours = clip.cosines(texts, shown)
    for text, image, found in zip(texts, shown, ours, strict=True):
        words = clip.tokenizer([text], truncation=True, max_length=77, return_tensors="pt")
        pixels = clip.processor([image], return_tensors="pt")["pixel_values"]
        out = clip.model(input_ids=words["input_ids"], pixel_values=pixels)
        assert found == pytest.approx(float(out.logits_per_image / clip.scale), abs=1e-5)
    assert clip.cosines([], []) == []
    with pytest.raises(ValueError, match="1 texts for 0 pictures"):
        clip.cosines(["a"], [])


def test_clip_sees_the_middle_of_a_picture(folders):
    """Short side to the network's size, middle cut out: the processor without torchvision, by hand."""
    clip = ImageText.load(folders["clip"])
    shown = picture(1, 64, 32)
    pixels = clip.processor([shown], return_tensors="pt")["pixel_values"][0]
    mean, deviation = np.array(clip.processor.image_mean), np.array(clip.processor.image_std)
    middle = np.asarray(shown.crop((16, 0, 48, 32))) / 255
    assert np.allclose(pixels.permute(1, 2, 0), (middle - mean) / deviation, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("t2i-compbench", {}, "needs a category of T2I-CompBench.*t2i-compbench-color"),
        ("t2i-compbench-colour", {}, "did you mean"),
        ("wise-verified", {}, "is not scored by detectors"),
        ("t2i-compbench-color", {"tagger": "en_no_such_thing"}, "spaCy pipeline en_no_such_thing is not here"),
        ("t2i-compbench-color", {"tagger": "."}, "holds no config.cfg"),
        ("t2i-compbench-non_spatial", {"clip": "nobody"}, "no folder nobody for the clip"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(name, choices, message):
    with pytest.raises(ValueError, match=message):
        evaluators.for_benchmark(name, choices)


def test_a_wrong_kind_of_model_is_refused(folders):
    with pytest.raises(ValueError, match="type 'yolos' and cannot be the vqa; give one of type blip"):
        evaluators.cast("t2i-compbench-color", {"vqa": folders["known"], "tagger": folders["tagger"]})
