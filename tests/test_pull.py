"""What pulls aligned vectors: which words belong together, what is written so far, distances that reach zero."""

import json
import random

import pytest
import torch
from t5_toy import t5_words, tiny_t5
from test_align import make_task, store
from vlm_toy import WIDTH, toy_tokenizer

from reverie.models.aligner import save_aligner
from reverie.models.t5 import encode_text
from reverie.training import align_distance
from reverie.training.align import AlignConfig, Masking, Words
from reverie.training.pull import encode_so_far, pull_of_sets, pull_of_words, same_words
from reverie.training.text_space import caption_texts, word_pieces


def test_tokens_of_the_same_letters_belong_together():
    words = Words(word_pieces(caption_texts(300), 512), 64)
    answers = toy_tokenizer()  # a token is a letter
    ids = answers("a red cat").input_ids
    told, shares = same_words([*ids, 258], answers, words)
    assert words.tokenizer.decode(told, skip_special_tokens=True) == "a red cat"
    assert shares.shape == (10, 4)
    assert shares.argmax(1)[[0, 2, 3, 4, 6, 7, 8, 9]].tolist() == [0, 1, 1, 1, 2, 2, 2, 3]
    assert torch.equal(shares.sum(1)[[0, 2, 3, 4, 6, 7, 8, 9]], torch.ones(8))
    empty, shares = same_words([258], answers, words)
    assert (len(empty), shares.tolist()) == (1, [[1.0]])


def test_each_vector_is_written_as_if_nothing_followed():
    t5 = tiny_t5()
    ids, mask = Words(t5_words(), 9).ids(["abcdef", "gh"])
    states = encode_so_far(t5, ids, mask)
    for length in (1, 3, ids.shape[1]):
        alone = encode_text(t5, ids[:1, :length], mask[:1, :length])
        torch.testing.assert_close(states[0, length - 1], alone[0, -1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(states[0, 0], encode_text(t5, ids, mask)[0, 0], atol=1e-3)


def test_distances_are_zero_where_the_vectors_are_those_of_the_encoder():
    states, mask = torch.randn(2, 4, 8), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    shares = torch.eye(4).repeat(2, 1, 1) * mask[:, None]
    assert pull_of_words(states, shares, states) == 0
    assert float(pull_of_words(-states, shares, states)) == pytest.approx(4, rel=1e-5)
    moved = states.clone()
    moved[1, 2:] += 9  # what stands for no word is left alone
    assert pull_of_words(moved, shares, states) == 0
    turned = states[:, [2, 0, 1, 3]].clone()
    turned[1] = states[1, [1, 0, 1, 0]]
    assert float(pull_of_sets(turned, states, mask)) == pytest.approx(0, abs=1e-6)
    turned[0, 0] = turned[0, 1]  # one state is met by nobody
    assert pull_of_sets(turned, states, mask) > 0.02


def test_pulled_vectors_come_nearer(tmp_path):
    task = make_task(store(tmp_path), Masking(whole=1.0), pull=1.0, read=0.0)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    batch, found = task.batch(0), []
    for _ in range(60):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(row["pull"]))
    assert found[-1] < 0.6 * found[0]
    assert "read" not in row
    random.seed(0)
    both, row = make_task(store(tmp_path / "b"), pull=2.0).loss(batch)
    assert float(both.detach()) == pytest.approx(float(row["read"] + 2 * row["pull"]), rel=1e-5)
    assert task.t5.config.d_model == WIDTH


def test_what_cannot_be_pulled_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.pull"):
        make_task(store(tmp_path, kind="input"), pull=1.0)
    with pytest.raises(ValueError, match="nor both"):
        AlignConfig(read=0.0)


def test_distances_to_the_encoder_are_told_of_files(tmp_path, capsys):
    task = make_task(store(tmp_path / "kept"), Masking(whole=1.0), pull=1.0, read=0.0)
    toy_tokenizer().save_pretrained(tmp_path / "kept" / "tokenizer")
    for part in (task.t5, t5_words()):
        part.save_pretrained(tmp_path / "t5")
    save_aligner(task.model, tmp_path / "fresh.safetensors")
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    for step in range(60):
        task.loss(task.batch(step % 3))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    save_aligner(task.model, tmp_path / "pulled.safetensors")
    given = ["--features", str(tmp_path / "kept"), "--t5", str(tmp_path / "t5"), "--every", "2"]
    given += [part for name in ("fresh", "pulled") for part in ("--aligner", f"{name}={tmp_path}/{name}.safetensors")]
    align_distance.main(given)
    told = dict(
        line.split(" ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith(("enc", "fr", "pu"))
    )
    found = {name: json.loads(row)["distance"] for name, row in told.items()}
    assert found["encoder"] == pytest.approx(0, abs=1e-6)
    assert 0 < found["pulled"] < found["fresh"] - 0.2
    with pytest.raises(ValueError, match="every=0"):
        align_distance.main([*given[:4], "--every", "0"])
