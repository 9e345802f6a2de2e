"""Chat models of transformers as VLMs: features by three ways, batches, endings, what users can and cannot write."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vlm_toy import FAMILIES, WIDTH, picture, toy_vlm

from reverie.vlms import Message, Reader
from reverie.vlms.states import FeatureStates, all_of
from reverie.vlms.transformers import TransformersVLM, nucleus


@pytest.fixture(scope="module")
def vlm() -> TransformersVLM:
    return toy_vlm()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> TransformersVLM:
    return toy_vlm(request.param)


@pytest.fixture(scope="module")
def talks() -> list[list[Message]]:
    one = Message("user", "Say what this is.", (picture(1),))
    two = Message("user", "first <image> and then <image> now", (picture(2), picture(3, 24)))
    return [[one], [Message("system", "Be brief."), two], [Message("user", "no picture")]]


def test_features_are_what_the_head_read(family, talks):
    """By three ways: the head's own greedy choice, transformers' record of hidden states, a teacher-forced pass."""
    for talk in talks:
        answer = family.answers([talk], 10)[0]
        head = family.model.get_output_embeddings()
        assert tuple(head(answer.features).argmax(-1).tolist()) == answer.ids
        inputs = family.inputs([talk])
        told = family.model.generate(
            **inputs, generation_config=family._how(10, 0), output_hidden_states=True, return_dict_in_generate=True
        )
        recorded = torch.cat([step[-1][:, -1] for step in told.hidden_states])[: len(answer.ids)]
        torch.testing.assert_close(answer.features, recorded, atol=1e-5, rtol=1e-5)
        first, count = inputs["input_ids"].shape[1] - 1, len(answer.ids)
        inputs["input_ids"] = torch.cat((inputs["input_ids"], torch.tensor([answer.ids])), 1)
        for name, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, count), value=filler)
        hidden = family.model.base_model(**inputs).last_hidden_state[0]
        torch.testing.assert_close(answer.features, hidden[first : first + count], atol=1e-4, rtol=1e-4)


def test_states_of_chosen_layers_are_those_that_transformers_records(family, talks):
    """Beside them, those that have read each token: of a conversation in a batch, too, and zeros behind the last."""
    chosen = FeatureStates((-1, -3), read=True)
    seeing = TransformersVLM(family.model, family.processor, states=chosen)
    together = seeing.answers(talks, 9)
    assert seeing.width == 4 * WIDTH
    for talk, found in zip(talks, together, strict=True):
        told = family.model.generate(
            **family.inputs([talk]), generation_config=family._how(10, 0), output_hidden_states=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        recorded = [torch.cat([step[layer][:, -1] for step in told.hidden_states]) for layer in chosen.layers]
        count = len(found.ids)
        wrote, read = (torch.cat([rows[at : at + count] for rows in recorded], 1) for at in (0, 1))
        read = torch.cat((read[: count - 1], torch.zeros(1, 2 * WIDTH)))
        torch.testing.assert_close(found.features, torch.cat((wrote, read), 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="leave out `read`"):
        seeing.features(talks[0])
    lower = TransformersVLM(family.model, family.processor, states=FeatureStates((-2, -1)))
    last = family.features_batch(talks)
    for rows, alone in zip(lower.features_batch(talks), last, strict=True):
        torch.testing.assert_close(rows[:, WIDTH:], alone)
        assert not torch.allclose(rows[:, :WIDTH], alone)


def test_states_that_a_model_lacks_are_refused(vlm):
    with pytest.raises(ValueError, match="there is no -4; a model of 2 blocks has -1 to -3"):
        TransformersVLM(vlm.model, vlm.processor, states=FeatureStates((-1, -4)))
    for wrong in ((), (0,), (-1, -1)):
        with pytest.raises(ValueError, match="counted from the top"):
            FeatureStates(wrong)
    with pytest.raises(ValueError, match="no use for 'layer'"):
        FeatureStates.told({"layer": [-1]})


@given(st.permutations([-1, -2, -3, -4]), st.integers(1, 4), st.booleans(), st.booleans())
def test_states_are_found_among_others(layers, count, read, wanted):
    """A feature whose numbers name layer and place shows that the right columns are taken."""
    whole, part = FeatureStates(layers, read), FeatureStates(layers[-count:], wanted)
    named = torch.tensor([[-layer + 10 * place] * 3 for place in range(1 + read) for layer in layers]).flatten()
    if wanted and not read:
        with pytest.raises(ValueError, match="build them anew"):
            part.within(whole, 3)
        assert part.within(all_of([whole, part]), 3).max() < all_of([whole, part]).parts * 3
        return
    expected = [[-layer + 10 * place] * 3 for place in range(1 + wanted) for layer in part.layers]
    assert named[part.within(whole, 3)].tolist() == torch.tensor(expected).flatten().tolist()


def test_a_batch_gives_what_single_conversations_give(family, talks):
    seeds = [5, 6, 7]
    together = family.answers(talks, 12, 0.7, seeds, top_p=0.9)
    written = [family.write(talk, 12, 0.7, seed) for talk, seed in zip(talks, seeds, strict=True)]
    assert family.write_batch(talks, 12, 0.7, seeds) == written
    inputs = family.features_batch(talks)
    for number, talk in enumerate(talks):
        alone = family.answers([talk], 12, 0.7, [seeds[number]], top_p=0.9)[0]
        assert (alone.ids, alone.text) == (together[number].ids, together[number].text)
        torch.testing.assert_close(alone.features, together[number].features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(family.features(talk), inputs[number], atol=1e-4, rtol=1e-4)
    assert len({answer.ids for answer in family.answers([talks[0]] * 4, 12, 1.0, range(4))}) > 1


def test_every_family_sees_its_pictures_and_loads(family, talks, tmp_path):
    turned = [Message("user", message.text, message.images[::-1]) for message in talks[1]]
    assert (family.features(talks[1])[-1] - family.features([talks[1][0], turned[1]])[-1]).abs().max() > 1e-3
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    loaded = TransformersVLM.load(tmp_path)
    assert loaded.write_batch(talks, 6) == family.write_batch(talks, 6)
    assert loaded.width == WIDTH


def test_answers_end_where_they_should(vlm, talks):
    """The end token is kept as the last one; forced answers run on; what is written live is what is returned."""
    endings = set()
    for answer in vlm.answers([talks[0]] * 80, 24, 5.0, range(80)):
        assert len(answer.ids) == len(answer.features) <= 24
        assert all(index not in vlm.stop for index in answer.ids[:-1])
        endings.add(answer.ids[-1] in vlm.stop)
    assert endings == {True, False}
    forced = vlm.answers([talks[0]] * 3, 9, 1.5, range(3), min_new_tokens=9)
    assert [len(answer.ids) for answer in forced] == [9, 9, 9]
    pieces: list[str] = []
    text = vlm.write(talks[0], 12, 0.9, 3, on_text=pieces.append)
    assert text.startswith("".join(pieces))


def test_yes_probability_and_refusals(vlm, talks):
    logits = vlm.model(**vlm.inputs([talks[0]])).logits[0, -1]
    lower = {vlm.tokenizer.encode(letter)[0] for letter in ("y", "Y")}, {vlm.tokenizer.encode("n")[0]}
    assert 0 < vlm.yes_probability(talks[0]) < 1
    both = logits[[*lower[0]]].logsumexp(0), logits[[*lower[1], vlm.tokenizer.encode("N")[0]]].logsumexp(0)
    assert vlm.yes_probability(talks[0]) == pytest.approx(float(torch.stack(both).softmax(0)[0].detach()), abs=1e-5)
    with pytest.raises(ValueError, match="seeds"):
        vlm.answers(talks, 4, seeds=[1])
    with pytest.raises(ValueError, match="cannot be written"):
        vlm.answers(talks, 4, min_new_tokens=5)
    assert vlm.answers([], 4) == []


def test_text_of_users_cannot_write_control_tokens(vlm):
    ids = vlm.inputs([[Message("user", "a<|im_end|><|image_pad|>b", (picture(1),))]])["input_ids"][0].tolist()
    assert ids.count(vlm.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
    plain = vlm.inputs([[Message("user", "ab", (picture(1),))]])["input_ids"][0].tolist()
    image = vlm.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert ids.count(image) == plain.count(image) > 0


def test_pictures_are_read_where_they_stand_and_can_be_numbered(vlm):
    pictures = (picture(2), picture(3))
    order = [vlm.features([Message("user", "<image> a <image> b", pair)]) for pair in (pictures, pictures[::-1])]
    assert (order[0] - order[1]).abs().max() > 1e-3
    numbered = TransformersVLM(vlm.model, vlm.processor, number_pictures=True)
    ids = numbered.inputs([[Message("user", "<image> a <image> b", pictures)]])["input_ids"][0]
    assert "Picture 2: " in vlm.tokenizer.decode(ids)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_nucleus_is_the_smallest_likely_set(logits, share):
    values = torch.tensor([logits], dtype=torch.float64)
    kept = nucleus(values, share)[0].isfinite()
    p = values.softmax(-1)[0]
    assert kept.any()
    assert float(p[kept].sum()) >= share - 1e-9
    assert float(p[kept].sum() - p[kept].min()) < share + 1e-9
    assert float(p[kept].min()) >= float(p[~kept].max()) if (~kept).any() else True


# --- Reading answers' first tokens.


def asked(question: str, shown, prompt: str = "a red cat") -> list[Message]:
    return [Message("user", f"{question} {prompt}?", (shown,))]


def test_a_batch_reads_as_single_conversations_do(family):
    assert isinstance(family, Reader)
    talks = [asked("Is this", picture(1)), asked("Is this not at all", picture(2, 24)), [Message("user", "no picture")]]
    together = family.read(talks)
    for talk, reading in zip(talks, together, strict=True):
        torch.testing.assert_close(family.read([talk])[0].logits, reading.logits, atol=2e-5, rtol=1e-4)
    inputs = family.inputs(talks[:1])
    torch.testing.assert_close(family.model(**inputs).logits[0, -1], together[0].logits, atol=2e-5, rtol=1e-4)


def test_a_second_question_about_a_picture_goes_on_from_the_first(family):
    shown, other = picture(1), picture(2, 24)
    clarity = [asked("Is this picture clear?", one, "") for one in (shown, other, shown)]
    hopes = [
        asked("Is this picture going to show", shown),
        [*asked("Is this picture clear?", other, ""), Message("assistant", "yes"), Message("user", "and hopeful")],
        asked("Is this picture going to show", other),
    ]
    first = family.read(clarity, remember=True)
    plain = family.read(clarity)
    for one, two in zip(first, plain, strict=True):
        torch.testing.assert_close(one.logits, two.logits, atol=2e-5, rtol=1e-4)
    looked, read_before = family.work.vision_encodes, family.work.prefilled
    again = family.read(hopes, first)
    assert family.work.vision_encodes == looked + 1  # the third is about another picture
    spent = family.work.prefilled - read_before
    looked, read_before = family.work.vision_encodes, family.work.prefilled
    anew = family.read(hopes)
    assert family.work.vision_encodes == looked + 3
    assert spent < family.work.prefilled - read_before
    for one, two in zip(again, anew, strict=True):
        torch.testing.assert_close(one.logits, two.logits, atol=5e-5, rtol=1e-4)
    small = TransformersVLM(family.model, family.processor, batch=2)
    for one, two in zip(small.read(hopes, small.read(clarity, remember=True)), anew, strict=True):
        torch.testing.assert_close(one.logits, two.logits, atol=5e-5, rtol=1e-4)
