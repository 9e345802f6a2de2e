"""The promise of the canvas, as a check for any token generator: an image depends on its own seed and prompts, and on
nothing else that happens."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st

from reverie.canvas import Canvas, Conditions

TYPES = (torch.float32, torch.bfloat16)
PROMPTS = ("a cat", "a red fish below a boat", "two dogs", "a red fish below a boat and under a pale moon at night", "")

images = st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(0, 2**40)), min_size=1, max_size=11)


def verbs(furthest: int):
    """What may happen to a canvas; furthest: steps that it goes on or back at once."""
    chance = st.randoms(use_true_random=False)
    return st.lists(
        st.one_of(
            st.tuples(st.just("advance"), st.integers(0, furthest)),
            st.tuples(st.just("rewind"), st.integers(0, furthest - 1)),
            st.tuples(st.just("fork"), st.integers(1, 3)),
            st.tuples(st.just("select"), chance),
            st.tuples(st.just("recondition"), chance),
            st.tuples(st.just("resume"), st.none()),
            st.tuples(st.just("preview"), st.none()),
        ),
        max_size=7,
    )


seen: list[torch.Tensor] = []
"""The logits of every draw by a picker of `noting`: they show differences of rounding that no code betrays yet."""


def noting(picker: Callable) -> Callable:
    """The usual draw, which notes its logits."""

    def noted(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float):
        seen.append(logits)
        return picker(logits, uniforms, temperature)

    return noted


def start(generator, prompts, seeds, guidance=None) -> Canvas:
    return generator.start(Conditions(prompts, guidance), seeds)


def apply(generator, canvas: Canvas, alone: list[Canvas], verb: str, argument, path) -> tuple[Canvas, list[Canvas]]:
    """One verb over the batch and over each image alone, and what became of them."""
    if verb == "advance":
        to = min(canvas.step + argument, generator.steps)
        return generator.advance(canvas, to), [generator.advance(one, to) for one in alone]
    if verb == "rewind":
        to = max(canvas.step - argument, 0)
        return generator.rewind(canvas, to), [generator.rewind(one, to) for one in alone]
    if verb == "fork" and len(canvas) * argument <= 20:
        copies = [one.fork(argument).select([copy]) for one in alone for copy in range(argument)]
        return canvas.fork(argument), copies
    if verb == "select":
        chosen = argument.choices(range(len(canvas)), k=argument.randint(1, len(canvas)))
        chosen = sorted(set(chosen)) if argument.random() < 0.7 else chosen
        return canvas.select(chosen), [alone[i].select([0]) for i in chosen]
    if verb == "recondition":
        guidance = canvas.conditions.guidance
        prompts = [
            argument.choice((p, f"{p}, and a bell", argument.choice(PROMPTS))) for p in canvas.conditions.prompts
        ]
        pairs = zip(alone, prompts, strict=True)
        single = [generator.recondition(one, Conditions([prompt], guidance)) for one, prompt in pairs]
        return generator.recondition(canvas, Conditions(prompts, guidance)), single
    if verb == "resume":
        canvas.save(path)
        return Canvas.load(path), alone
    if verb == "preview":
        generator.preview(canvas)
    return canvas, alone


def check(
    generator,
    images: Sequence[tuple[str, int]],
    verbs: Sequence[tuple],
    guidance: float | None,
    path,
    split: Callable[[torch.Tensor, Canvas], Sequence[torch.Tensor]] = lambda logits, canvas: logits.split(1),
) -> None:
    """After the verbs, codes and the logits of the last draw are those of the same image alone.

    The generator draws by a picker of `noting`. split: logits of a batch to those of each image.
    """
    canvas = start(generator, *zip(*images, strict=True), guidance)
    alone = [start(generator, [prompt], [seed], guidance) for prompt, seed in images]
    for verb, argument in verbs:
        canvas, alone = apply(generator, canvas, alone, verb, argument, path)
    last = min(canvas.step, generator.steps - 1)
    canvas = generator.advance(generator.rewind(canvas, last))
    logits = split(seen[-1], canvas)
    for index, one in enumerate(alone):
        one = generator.advance(generator.rewind(one, last))
        assert torch.equal(canvas.tokens[index], one.tokens[0]), f"image {index} of {len(alone)}"
        assert torch.equal(logits[index], seen[-1]), f"logits of image {index} of {len(alone)}"
    seen.clear()


def check_pieces(generator, prompts: Sequence[str], step: int) -> Canvas:
    """Pieces equal one stroke, a canvas that was gone on from stays valid, and a way back leads to the same state.
    Returns the canvas at `step`."""
    first = start(generator, prompts, range(len(prompts)))
    whole, half = generator.advance(first), generator.advance(first, step)
    shown = generator.preview(half)
    again = generator.advance(half)
    assert torch.equal(whole.tokens, again.tokens)
    assert torch.equal(generator.advance(half).tokens, again.tokens)
    back = generator.rewind(whole, step)
    assert torch.equal(back.tokens, half.tokens)
    assert all((a == b).all() for a, b in zip(generator.preview(back), shown, strict=True))
    return half
