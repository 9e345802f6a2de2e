"""Reward models on tiny checkpoints of the real classes, against transformers' own forward passes; as judges through
the command line; and the names that stand for judges anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from evaluator_toys import bert_tokenizer, picture, save_blip, save_clip, save_image_reward
from test_served_vlm import Model, serving
from tiny import tiny_folder
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from vlm_toy import toy_vlm

import reverie
from reverie.canvas import Work
from reverie.cli import main
from reverie.events import Verdict
from reverie.judges import View, rewards
from reverie.judges.load import open_judge
from reverie.judges.rules import share
from reverie.models.judge_names import family_of, scorer, split
from reverie.models.registry import entries, resolve
from reverie.vlms import Message
from reverie.vlms.named import check as check_name
from reverie.vlms.named import open_vlm

PROMPTS = ["a red cat", "a bench", "two of the dog", "a red cat"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("rewards")
    vlm = toy_vlm("Llava")
    vlm.model.save_pretrained(root / "vlm")
    vlm.processor.save_pretrained(root / "vlm")
    return {
        "clip": save_clip(root / "clip"),
        "itm": save_blip(root / "itm", kind="BlipForImageTextRetrieval"),
        "vlm": root / "vlm",
        "painter": tiny_folder(root / "painter"),
    }


def cosine(clip, prompt, shown):
    ids = clip.tokenizer([prompt], return_tensors="pt")["input_ids"]
    out = clip.model(input_ids=ids, pixel_values=clip.processor([shown], return_tensors="pt")["pixel_values"])
    return float(out.logits_per_image) / clip.scale


@pytest.mark.parametrize("kind", ["clipscore", "pickscore", "hpsv2"])
def test_cosines_on_the_published_scales(folders, kind):
    reward = rewards.load(f"{kind}:{folders['clip']}")
    shown = [picture(seed) for seed in range(4)]
    plain = [cosine(reward.clip, prompt, one) for prompt, one in zip(PROMPTS, shown, strict=True)]
    assert max(plain) > 0 > min(plain) or kind != "clipscore"
    scale = float(reward.clip.model.logit_scale.exp())
    wanted = [2.5 * max(c, 0) if kind == "clipscore" else scale * c for c in plain]
    found = reward(PROMPTS, shown)
    assert found == pytest.approx(wanted, abs=1e-4)
    judged = [reward.judged(score) for score in found]
    assert all(0 <= value <= 1 for value in judged)
    assert sorted(range(4), key=judged.__getitem__) == sorted(range(4), key=found.__getitem__)


def test_a_difference_of_preferences_is_the_logit_of_being_preferred(folders):
    """PickScore: softmax over the scores of two pictures; a judge's number is that against a picture of score 20."""
    reward = rewards.load(f"pickscore:{folders['clip']}")
    for score in (18.5, 20.0, 23.0):
        chance = torch.tensor([score, 20.0]).softmax(0)[0]
        assert reward.judged(score) == pytest.approx(float(chance))


def test_matching_is_that_of_the_class_whatever_the_batch(folders):
    reward = rewards.load(f"itmscore:{folders['itm']}")
    shown = [picture(seed) for seed in range(4)]
    found = reward(PROMPTS, shown)
    for prompt, one, score in zip(PROMPTS, shown, found, strict=True):
        ids = reward.tokenizer([prompt], return_tensors="pt")["input_ids"]
        out = reward.model(ids, reward.processor([one], return_tensors="pt")["pixel_values"])
        assert score == pytest.approx(float(out.itm_score.softmax(-1)[0, 1]), abs=1e-5)
    assert len({round(score, 4) for score in found}) > 2


def test_image_reward_reads_its_authors_files(tmp_path):
    """Against the halves of BLIP that the file was written from, and the layers and numbers of the paper's code."""
    vision, text, layers = save_image_reward(tmp_path / "reward")
    reward = rewards.load(f"imagereward:{tmp_path / 'reward'}")
    shown = [picture(seed, 48, 32) for seed in range(4)]
    found = reward(PROMPTS, shown)
    words = bert_tokenizer()
    for prompt, one, score in zip(PROMPTS, shown, found, strict=True):
        middle = torch.tensor(np.asarray(one.crop((8, 0, 40, 32)))).permute(2, 0, 1)[None] / 255
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        with torch.no_grad():
            seen = vision((middle - mean) / deviation).last_hidden_state
            ids = torch.tensor([words.encode(prompt)])
            state = text(input_ids=ids, encoder_hidden_states=seen).last_hidden_state[:, 0]
            for layer in layers:
                state = layer(state)
        assert score == pytest.approx((float(state) - 0.16717362830052426) / 1.0333394966054072, abs=1e-4)
    assert len({round(score, 4) for score in found}) > 2
    assert reward.judged(0.0) == 0.5
    tensors = torch.load(tmp_path / "reward" / "ImageReward.pt")
    tensors.pop("blip.visual_encoder.blocks.1.norm1.weight")
    torch.save(tensors, tmp_path / "reward" / "ImageReward.pt")
    with pytest.raises(ValueError, match="is not whole"):
        rewards.load(f"imagereward:{tmp_path / 'reward'}")
    (tmp_path / "reward" / "med_config.json").unlink()
    with pytest.raises(ValueError, match=r"holds no med_config.json"):
        rewards.check(f"imagereward:{tmp_path / 'reward'}")


def test_vqascore_is_the_probability_of_yes(folders):
    reward = rewards.load(f"vqascore:{folders['vlm']}")
    shown = [picture(seed) for seed in range(2)]
    found = reward(PROMPTS[:2], shown)
    asked = 'Does this figure show "a bench"? Please answer yes or no.'
    assert found[1] == pytest.approx(reward.vlm.yes_probability([Message("user", asked, (shown[1],))]))
    assert found[0] != found[1]
    with serving(Model(logprobs={"Yes": 0.6, " no": 0.2})) as url:
        assert rewards.load(f"vqascore:openai:toy@{url}")(PROMPTS[:2], shown) == pytest.approx([0.75, 0.75])


def test_they_choose_on_the_command_line(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = f"clipscore:{folders['clip']}"
    options = ["--choose", "orm", "--candidates", "3", "--judge", name, "--seed", "3", "--json"]
    assert main(["generate", "a red cat", "--model", str(folders["painter"]), *options]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    verdicts = [record for record in records if record["event"] == "verdict"]
    assert {one["judge"] for one in verdicts} == {name}
    assert len({one["scores"]["score"] for one in verdicts}) == 3
    (chosen,) = [record for record in records if record["event"] == "chosen"]
    best = max(range(3), key=lambda place: verdicts[place]["scores"]["score"])
    assert verdicts[best]["candidate"] == chosen["candidate"]


def test_they_weigh_together(folders):
    """Two in an ensemble: the weighted mean of numbers between 0 and 1."""
    painter = reverie.load(folders["painter"])
    names = [f"clipscore:{folders['clip']}", f"itmscore:{folders['itm']}"]
    result = painter.generate("a red cat", choose="orm", candidates=3, judge=[(names[0], 1), (names[1], 3)], seed=3)
    scores = [event.scores["score"] for event in result.trace if isinstance(event, Verdict)]
    assert len(set(scores)) == 3
    parts = [reward.judged(reward(["a red cat"], [result.image])[0]) for reward in map(rewards.load, names)]
    assert max(scores) == pytest.approx((parts[0] + 3 * parts[1]) / 4, abs=1e-4)


def test_any_chat_model_and_any_server_judges(folders):
    view = View("a red cat", picture(1))
    judge = open_judge(resolve(folders["vlm"], "judge"), "cpu")(Work(), False)
    (answer,) = judge.ask("orm", [view])
    # Over the whole vocabulary; what counts is yes against no.
    talk = judge.wording.conversation("orm", view.prompt, view.picture)
    assert 0 < answer.yes + answer.no < 1
    assert share(answer) == pytest.approx(judge.vlm.yes_probability(talk), abs=1e-5)
    model = Model(logprobs={"yes": 0.9, "no": 0.1})
    with serving(model) as url:
        served = open_judge(resolve(f"openai:toy@{url}", "judge"), "cpu")(Work(), False)
        (answer,) = served.ask("orm", [view])
    assert answer.yes == pytest.approx(0.9)
    assert "a red cat" in json.dumps(model.bodies[0])


def test_a_janus_answers_like_any_other_model(folders):
    """A name, a folder and a server are one to whoever asks: a benchmark's judge, VQAScore."""
    vlm = open_vlm(str(folders["painter"]))
    talk = [Message("user", "Is this a cat? yes or no", (picture(1),))]
    assert 0 < vlm.yes_probability(talk) < 1
    assert rewards.load(f"vqascore:{folders['painter']}")(["a cat"], [picture(1)])[0] > 0
    assert check_name(str(folders["painter"])).folder == folders["painter"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clipscore:", "gives scores and cannot answer questions"),
        ("atelier-inspector", "cannot answer questions"),
        ("llamagen-xl", "cannot judge pictures"),
        ("nowhere", "no folder nowhere for the judge"),
    ],
)
def test_who_cannot_answer_is_refused(name, message):
    folder = entries()[name].folder if name in entries() else None
    if folder is not None and not folder.is_dir():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(ValueError, match=message):
        open_vlm(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clipscore:nowhere", "no folder nowhere for the clipscore"),
        ("vqascore:", "names no model: write vqascore:MODEL"),
        ("openai:@http://x", "names no served model"),
        ("openai:toy@ftp://x", "names no served model"),
        ("clipscores:x", "unknown model 'clipscores:x'"),
    ],
)
def test_a_wrong_name_is_one_sentence_before_anything_loads(folders, name, message, capsys):
    options = ["--choose", "orm", "--candidates", "2", "--judge", name]
    assert main(["generate", "a cat", "--model", str(folders["painter"]), *options]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("reverie: ")
    assert err.count("\n") == 1
    assert message in err


def test_names_say_what_they_stand_for(folders, tmp_path):
    assert split("openai:Qwen/Q@2@http://h:1/v1") == ("Qwen/Q@2", "http://h:1/v1")
    assert split("openai:toy") == ("toy", "http://localhost:8000/v1")
    assert scorer("pickscore:").model == "yuvalkirstain/PickScore_v1"
    assert scorer("atelier-inspector") is None
    assert family_of("openai:toy") == "served"
    assert family_of("clipscore:") == "reward"
    assert family_of(str(folders["vlm"])) == "chat"
    assert family_of(str(folders["painter"])) is None
    assert family_of("owner/name") is None
    with pytest.raises(ValueError, match="names no reward model"):
        rewards.load("owner/name")
