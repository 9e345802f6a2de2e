"""How fast thinking while painting is: ours beside the published procedure done literally, same weights, same pictures.

    python speed/twig.py --model atelier-janus --prompts 16 --threads 2
    python speed/twig.py --model atelier-janus-twig --own --prompts 16 --threads 2
    python speed/twig.py --rl --model atelier-janus

The literal way is that of the authors' script (arXiv 2511.16671, twig.py) on the Llama of transformers: one prompt at a
time; every text change prefills everything anew; each code's embedding is put behind a growing tensor of all inputs; a
preview is decoded, written as PNG, and read again for every question; every question enters from its first token.
Texts, random numbers and arithmetic are the same, so texts and codes must be equal, and the script stops if they are
not. Ways are timed in turns; the table shows medians and images an hour.

`--own` asks in the model's own wording (dialogue.yaml) in place of the published one, which only models that follow
long instructions know: the same procedure, with requests and answers as short as the model's users have them.

`--rl` times steps of TWIG-GRPO: their roll-outs by our engine, and by the training forward, which sends the whole
sequence of all pictures of a prompt through the model for every token (of each thought and region three lengths are
timed and carried over by Simpson's rule; what looks at previews and decodes them is left out).
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from transformers import DynamicCache, LlamaModel
from transformers import LlamaConfig as TheirLlama

import reverie
from reverie.canvas import Work, copy_seed, draw_uniforms, pick
from reverie.dialogue import OfficialStory, Story, dialogue
from reverie.events import Finished
from reverie.generators.janus import JanusPainter, to_uint8
from reverie.reason import Plan, run
from reverie.schedule import bands
from reverie.thinkers import Thinker
from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes, prepare

PROMPTS = (
    "a red cat left of a blue dog", "two green apples and a yellow boat", "a wooden clock", "three white birds",
    "a purple fish below a star", "an orange car", "four black hats", "a pink house beside a tree",
)  # fmt: skip


ONE, MANY = (16, 128), (32, 64)
"""Rows and chunk of ours for one picture and for many at once, as was found fastest."""


def their_llama(model) -> LlamaModel:
    """The decoder of transformers over our tensors."""
    c = model.config.language
    config = TheirLlama(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads, head_dim=c.head_dim,
        num_key_value_heads=c.num_key_value_heads, rms_norm_eps=c.rms_norm_eps, max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
    )  # fmt: skip
    found = LlamaModel(config).to(model.dtype).eval()
    found.load_state_dict(model.language_model.model.state_dict())
    return found


class Literal:
    """The published procedure for one prompt."""

    def __init__(
        self, model, words, guidance: float, temperature: float, tokens: int, regions: int = 3, own: str | None = None
    ):
        """own: the wording to ask in, where it is not the published one."""
        self.model, self.words, self.own = model, words, own
        self.paint_words = words if own else words.as_published_for_painting()
        self.llama, self.guidance, self.temperature = their_llama(model), guidance, temperature
        self.tokens, self.regions, self.eyes = tokens, regions, JanusEyes(model, words)

    def story(self, prompt: str) -> Story:
        kind, name = (Story, self.own) if self.own else (OfficialStory, "official")
        words = dialogue(name)
        if words.look_first:
            raise ValueError(f"the wording {name!r} shows a blank canvas first, which the published procedure does not")
        return kind(words, prompt, self.regions)

    @torch.no_grad()
    def __call__(self, prompt: str, seed: int, folder: Path) -> tuple[list[int], list[str]]:
        """All codes, and all that was written."""
        story, told = self.story(prompt), list[str]()
        length = self.model.config.image_length
        codes = torch.zeros(length, dtype=torch.long)
        ends = (
            bands((1,) * self.regions, length, self.model.config.grid)  # whole rows, as whoever uses it has them
            if self.own
            else [*(n * (length // self.regions) for n in range(1, self.regions)), length]
        )
        start, shown = 0, None
        for number, end in enumerate(ends, 1):
            thought = story.heard(self.write(story.think(number, shown is not None), story, shown, told))
            thought = thought or (prompt if self.own else "")
            for attempt in range(2):
                self.paint(story.painting(thought, attempt > 0), codes, start, end, copy_seed(seed, number, attempt))
                shown = self.preview(codes, end, folder)
                if attempt == 1:
                    break
                read = story.read(self.write(story.judge(thought, number == len(ends)), story, shown, told), thought)
                if read.score >= 90 or not read.revision:
                    break
                thought = read.revision
            story.keep(thought, attempt > 0)
            start = end
        return codes.tolist(), told

    def write(self, text: str, story: OfficialStory, shown: Path | None, told: list[str]) -> str:
        pictures = (Image.open(shown).convert("RGB"),) if shown else ()
        ids = torch.tensor([self.eyes.ids([Message("user", text, pictures, story.words.special)])])
        embeds = self.model.embed_text(ids)
        if pictures:
            features = self.model.image_features(prepare(pictures[0], self.words.rules)[None])
            embeds[0, ids[0] == self.words.placeholder] = features[0].to(embeds)
        cache, written = DynamicCache(), list[int]()
        for _ in range(self.tokens):
            hidden = self.llama(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
            token = int(self.model.text_logits(hidden[:, -1]).argmax(-1))
            if token == self.words.eos:
                break
            written.append(token)
            embeds = self.model.embed_text(torch.tensor([[token]]))
        told.append(self.words.decode(written))
        return told[-1]

    def paint(self, text: str, codes, start: int, end: int, seed: int) -> None:
        ids = self.paint_words.painting_ids(text)
        # Without guidance nothing is asked of the blank prompt; the published script never paints so.
        rows = torch.tensor([ids, self.paint_words.blank_ids(ids)][: 1 if self.guidance == 1 else 2])
        embeds = self.model.embed_text(rows)
        if start:
            embeds = torch.cat([embeds, self.model.embed_codes(codes[:start]).repeat(len(rows), 1, 1).to(embeds)], 1)
        uniforms, cache = draw_uniforms([seed], len(codes)), None
        for place in range(start, end):
            out = self.llama(
                inputs_embeds=embeds if cache is None else embeds[:, -1:], past_key_values=cache, use_cache=True
            )
            cache = out.past_key_values
            logits = self.model.code_logits(out.last_hidden_state[:, -1]).float()
            conditional, blank = logits[0], logits[-1]
            guided = (blank + self.guidance * (conditional - blank))[None]
            codes[place] = pick(guided, uniforms[:, place], self.temperature)[0]
            embeds = torch.cat([embeds, self.model.embed_codes(codes[place].repeat(len(rows), 1)).to(embeds)], 1)

    def preview(self, codes, end: int, folder: Path) -> Path:
        held = codes.clone()
        held[end:] = 0
        picture = to_uint8(self.model.decode_codes(held[None]))[0]
        path = folder / f"{end}.png"
        Image.fromarray(picture).save(path)
        return path


def ours(
    model, words, literal: Literal, prompts: list[str], seeds: list[int], rows: int = MANY[0], chunk: int = MANY[1]
):
    """What `literal` gives for each prompt; rows, chunk: sizes of matrix products, which change the rounding alone."""
    settings = {"guidance": literal.guidance, "temperature": literal.temperature, "rows": rows, "chunk": chunk}
    painter = JanusPainter(model, literal.paint_words, **settings)
    plan = Plan(
        think="during", regions=literal.regions, reflect=1, official=not literal.own, thought_tokens=literal.tokens
    )
    held = {}

    class Noting(JanusPainter):
        def advance_together(self, canvases, to):
            found = super().advance_together(canvases, to)
            for canvas in found:
                for row, own in zip(canvas.tokens, canvas.seeds, strict=True):
                    held[own] = row.tolist()
            return found

    painter.__class__ = Noting
    eyes = JanusEyes(model, words, rows=rows, chunk=chunk)
    thinker = Thinker(eyes, "instruct", lambda text: None, Work(), literal.own or "")
    events = list(run(painter, thinker, plan, prompts, seeds, batch=len(prompts), previews=False))
    finished = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.image)
    codes = []
    for event in finished:
        attempts = len(event.recipe["regions"][-1]["attempts"])
        codes.append(held[copy_seed(event.seed, literal.regions, attempts - 1)])
    return [(row, event.recipe["answers"]) for row, event in zip(codes, finished, strict=True)]


def compare(arguments) -> dict:
    """Seconds an image of each way; ValueError where they paint or write different things."""
    loaded = reverie.load(arguments.model, device="cpu", dtype=arguments.dtype)
    model, words = loaded.model, loaded.tokenizer
    own = model.config.raw.get("reverie", {})
    told = (loaded.source.dialogue or loaded.source.thinker) if arguments.own else None
    guidance = own.get("guidance", 5.0) if arguments.guidance is None else arguments.guidance
    literal = Literal(model, words, guidance, own.get("temperature", 1.0), arguments.tokens, own=told)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(arguments.prompts)]
    seeds = list(range(100, 100 + len(prompts)))
    with tempfile.TemporaryDirectory() as folder:
        checked = [literal(p, s, Path(folder)) for p, s in zip(prompts[: arguments.checked], seeds, strict=False)]
        found = ours(model, words, literal, prompts, seeds)
        alone = [
            ours(model, words, literal, prompts[i : i + 1], seeds[i : i + 1], arguments.rows, arguments.chunk)[0]
            for i in range(min(2, arguments.checked))
        ]
        equal = sum(same(a, b) for a, b in zip(checked, found, strict=False))
        equal = min(equal, len(checked) if all(map(same, checked, alone)) else 0)
        if equal < len(checked) and arguments.dtype == "float32":
            raise ValueError(f"only {equal} of {len(checked)} pictures and their texts are equal")
        seconds: dict[str, list[float]] = {
            "literal": [],
            "ours, one at a time": [],
            f"ours, {len(prompts)} at once": [],
        }
        for turn in range(arguments.repeats):
            one = turn % len(prompts)
            seconds["literal"].append(timed(lambda i=one: literal(prompts[i], seeds[i], Path(folder))))
            seconds["ours, one at a time"].append(
                timed(
                    lambda i=one: ours(
                        model, words, literal, prompts[i : i + 1], seeds[i : i + 1], arguments.rows, arguments.chunk
                    )
                )
            )
            seconds[f"ours, {len(prompts)} at once"].append(
                timed(lambda: ours(model, words, literal, prompts, seeds)) / len(prompts)
            )
    return {"equal": equal, "of": len(checked), "seconds": {n: statistics.median(v) for n, v in seconds.items()}}


def same(literal: tuple[list[int], list[str]], ours: tuple[list[int], list[str]]) -> bool:
    """Whether codes and answers are equal; ours may leave a critique when its score accepts."""
    (codes, told), (own, heard) = literal, ours
    return codes == own and len(told) == len(heard) and all(map(str.startswith, told, heard))


def timed(way) -> float:
    """Wall seconds with several threads; the process's own CPU seconds with one, which other programs disturb less."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.process_time
    begin = clock()
    way()
    return clock() - begin


def reinforcement(arguments) -> dict:
    """Seconds of a step of TWIG-GRPO: roll-outs and learning, and roll-outs by the training forward."""
    from reverie.atelier.inspector import Inspector
    from reverie.models.registry import entries
    from reverie.training.atelier_grpo import AtelierRl, atelier_task
    from reverie.training.grpo import GrpoConfig
    from reverie.training.janus_grpo import Learning

    loaded = reverie.load(arguments.model, device="cpu", dtype="float32")
    model, words = loaded.model, loaded.tokenizer
    inspector = Inspector.load(entries()["atelier-inspector"].folder)
    # Paid by what differs between any two pictures, so that all of them teach something.
    rewards = {"sure": 1.0}
    config = AtelierRl(
        tree="twig",
        images=arguments.images,
        riddles=0.0,
        limit=arguments.tokens,
        guidance=1.0,
        beta=0.0,
        rewards=rewards,
    )
    janus = Learning(model, words, loaded.source.thinker, loaded.source.dialogue)
    task = atelier_task(janus, inspector, config, GrpoConfig(prompts=1))
    explore, rolled = task.explore, list[float]()

    def metered(prompts, seeds):
        found: list = []
        rolled.append(timed(lambda: found.extend(explore(prompts, seeds))))
        return found

    task.explore, whole, slow = metered, list[float](), list[float]()
    task.loss(task.batch(0))[0].backward()  # whatever happens once
    for turn in range(1, arguments.repeats + 1):
        batch = task.batch(turn)
        whole.append(timed(lambda batch=batch: task.loss(batch)[0].backward()))
        # Every level of the tree is one batch, which goes on to the end of its longest segment.
        leaves = [leaf.segments for tree in task.latest for leaf in tree.leaves()]
        longest = [max(level, key=len) for level in zip(*leaves, strict=True)]
        slow.append(sum(training_forward(model, words, segment, arguments.images) for segment in longest))
    step, roll_out, forward = (statistics.median(times) for times in (whole, rolled[1:], slow))
    return {
        "step": step,
        "roll-out": roll_out,
        "roll-out by the training forward": forward,
        "learning": step - roll_out,
    }


@torch.no_grad()
def training_forward(model, words, segment, rows: int) -> float:
    """Seconds for so many rows of a segment, were every token drawn from a forward of the whole sequence."""
    before = len(segment.context.ids) + (len(segment.context.painted) if segment.modality == "image" else 0)
    number, seconds = len(segment), []
    for written in (0, number // 2, number - 1):
        embeds = model.embed_text(torch.zeros(rows, before + written, dtype=torch.long))
        head = model.code_logits if segment.modality == "image" else model.text_logits
        seconds.append(timed(lambda e=embeds, h=head: h(model.hidden(e))))
    return (seconds[0] + 4 * seconds[1] + seconds[2]) / 6 * number


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-janus")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--own", action="store_true", help="ask in the model's own wording, not the published one")
    parser.add_argument("--guidance", type=float, help="of the codes, in place of the model's own")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--checked", type=int, default=4, help="pictures that are compared before timing")
    parser.add_argument(
        "--rows", type=int, default=ONE[0], help="of a matrix product where one picture is made at a time"
    )
    parser.add_argument("--chunk", type=int, default=ONE[1], help="tokens of a prompt that enter at a time, there")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rl", action="store_true")
    parser.add_argument("--images", type=int, default=8, help="with --rl: pictures of the prompt")
    return parser.parse_args(argv)


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.rl:
        found = reinforcement(arguments)
        slow = found["learning"] + found["roll-out by the training forward"]
        found |= {"steps an hour": 3600 / found["step"], "by the training forward": 3600 / slow}
        print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=1))
        return
    found = compare(arguments)
    base = found["seconds"]["literal"]
    print(f"{found['equal']} of {found['of']} pictures and all their texts are equal ({arguments.dtype}).")
    print("| | seconds an image | images an hour | against literal |\n|---|---|---|---|")
    for name, seconds in found["seconds"].items():
        print(f"| {name} | {seconds:.2f} | {3600 / seconds:.0f} | {base / seconds:.2f} x |")


if __name__ == "__main__":
    main()
