"""What a client asks for: read from JSON, and checked whole before it enters the queue.

Every check is the library's own (refusals.py, `Plan`); what is added here is what only a server knows: which models it
serves, and how much one request may ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from reverie.inputs import Inputs
from reverie.judges.load import check_judge
from reverie.models.registry import Source, cached, entries, resolve
from reverie.reason import Plan, did_you_mean, make_plan
from reverie.refusals import check_canvas, check_inputs, check_request, check_thinks, in_words, usual_judge

KINDS = ("generate", "edit", "context")
PLAN_FIELDS = tuple(f.name for f in fields(Plan))
OWN_FIELDS = ("kind", "prompt", "model", "preset", "seed", "n", "picture", "context", "group")
LONGEST_PROMPT = 4000
LONGEST_GROUP = 100
MOST_PARTS = 16
Upload = Callable[[str], Path]
"""The file of an upload; ValueError if there is none."""
UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
TYPES = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
"""What JSON may hold for a field of a plan, by the first word of its annotation."""


@dataclass(frozen=True)
class Limits:
    """How much is painted for one request, and at once."""

    images: int = 10
    """Finished images of one run; as many as OpenAI's interface allows."""
    rows: int = 64
    """Candidates of all images of one run, painted or not."""
    batch: int = 32
    """Images of all runs that share a canvas."""
    queue: int = 64
    """Runs that wait, over all clients."""
    per_client: int = 16
    seconds: float = 900.0
    """Of one batch."""
    upload_bytes: int = 20 << 20
    upload_pixels: int = 24_000_000


@dataclass(frozen=True)
class House:
    """What a server offers: models by name, the first one by default, and its limits."""

    models: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)

    def source(self, name: str) -> Source:
        """ValueError for a model that is not served: a request must not make the server fetch or open anything."""
        if name not in self.models:
            served = ", ".join(self.models)
            raise ValueError(f"the model {name!r} is not served here{did_you_mean(name, self.models)}; take {served}.")
        return resolve(name)

    def judges(self) -> list[str]:
        """Names that may judge: what is served, and what the table lists and is here."""
        listed = (e for e in entries().values() if e.kind in ("judge", "inspector"))
        here = [e.name for e in listed if (e.folder.is_dir() if e.folder is not None else cached(e.id or ""))]
        return [*self.models, *here]


@dataclass(frozen=True)
class Request:
    """A run as it was asked for, the seed settled."""

    kind: str
    prompt: str
    model: str
    plan: Plan
    seed: int
    n: int = 1
    preset: str | None = None
    picture: str | None = None
    """Upload that is edited."""
    context: tuple[Mapping[str, str], ...] = ()
    """Pictures and words before the prompt: {"image": upload} or {"text": words}."""
    group: str | None = None
    """Runs that are compared with one another share this name."""

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.n))

    @property
    def uploads(self) -> list[str]:
        parts = [part["image"] for part in self.context if "image" in part]
        return [*([self.picture] if self.picture else []), *parts]

    @property
    def together(self) -> tuple[Any, ...] | None:
        """Requests of which this is equal are painted in one canvas; None if it is painted alone."""
        return (self.model, self.plan) if self.kind == "generate" else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"context": [dict(part) for part in self.context]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Request:
        return cls(
            **{**record, "plan": Plan.from_json(record["plan"]), "context": tuple(record["context"])},
        )


def parse(record: Any, house: House, upload: Upload) -> Request:
    """A request from JSON; ValueError, in one sentence, for anything that could not be painted."""
    if not isinstance(record, Mapping):
        raise ValueError(f"a run is a JSON object, not {type(record).__name__}.")
    unknown = next((name for name in record if name not in (*PLAN_FIELDS, *OWN_FIELDS)), None)
    if unknown is not None:
        known = (*OWN_FIELDS, *PLAN_FIELDS)
        raise ValueError(f"a run has no field {unknown!r}{did_you_mean(unknown, known)}; it has {', '.join(known)}.")
    kind = _text(record, "kind") or "generate"
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}.")
    prompt, group = record.get("prompt", ""), _text(record, "group")
    if isinstance(prompt, str) and len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"the prompt has {len(prompt)} letters; at most {LONGEST_PROMPT} are read.")
    if group is not None and len(group) > LONGEST_GROUP:
        raise ValueError(f"the group has {len(group)} letters; at most {LONGEST_GROUP} are kept.")
    picture, context = _picture(record, kind), _context(record, kind)
    plan = read_plan(record)
    source = house.source(_text(record, "model") or house.models[0])
    n = record["n"] if record.get("n") is not None else 1
    _check_served(plan, house)
    seeds = checked(source, plan, prompt, record.get("seed"), n, inputs_of(picture, context, upload))
    _check_size(plan, n, house)
    preset = _text(record, "preset")
    return Request(kind, prompt, source.name, plan, seeds[0], n, preset, picture, context, group)


def read_plan(record: Mapping[str, Any]) -> Plan:
    """The plan that a record asks for by `preset` and by fields of a plan; other entries are left alone."""
    asked = {name: record[name] for name in PLAN_FIELDS if record.get(name) is not None}
    for plan_field in fields(Plan):
        value, wanted = asked.get(plan_field.name), str(plan_field.type).split(" ")[0]
        if value is not None and (not isinstance(value, TYPES[wanted]) or (wanted != "bool" and value is True)):
            words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
            raise ValueError(f"{plan_field.name}={value!r}: must be {words[wanted]}.")
    return make_plan(_text(record, "preset"), **asked)


def inputs_of(picture: str | None, context: Sequence[Mapping[str, str]], upload: Upload) -> Inputs:
    """What stands beside the prompt, its pictures opened."""
    parts = [upload(part["image"]) if "image" in part else part["text"] for part in context]
    return Inputs.of(upload(picture) if picture is not None else None, parts)


def checked(source: Source, plan: Plan, prompt: Any, seed: Any, n: Any, inputs: Inputs) -> list[int]:
    """The seeds, after all checks that need no weights, as `reverie generate` makes them."""
    check_thinks(source, plan)
    check_canvas(source, plan)
    seeds = check_request(source, prompt, seed, n)
    check_inputs(source, plan, inputs)
    check_judge(plan, None if in_words(source, plan, inputs) else prompt)
    if plan.judges and plan.judge is None:
        usual_judge(source)
    return seeds


def _check_served(plan: Plan, house: House) -> None:
    """A request must not make the server open or call anything that it does not offer."""
    for what, name in (("judge", plan.judge), ("model of eyes", plan.eyes), ("thinker", plan.thinker)):
        if name is not None and name not in house.judges():
            raise ValueError(f"the {what} {name!r} is not served here; take one of {', '.join(house.judges())}.")


def _check_size(plan: Plan, n: int, house: House) -> None:
    limits = house.limits
    if n > limits.images:
        raise ValueError(f"n={n}: this server paints at most {limits.images} images for a run.")
    if n * plan.candidates > limits.rows:
        raise ValueError(
            f"{n} x {plan.candidates} candidates: this server paints at most {limits.rows} pictures for a run; "
            "ask for fewer images or candidates."
        )


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: must be text.")
    return value or None


def _picture(record: Mapping[str, Any], kind: str) -> str | None:
    picture = _text(record, "picture")
    if (picture is None) == (kind == "edit"):
        raise ValueError("kind 'edit' needs a picture, and no other kind has one; give the id of an upload.")
    if picture is not None and not UPLOAD_ID.fullmatch(picture):
        raise ValueError(f"picture={picture!r}: is not the id of an upload.")
    return picture


def _context(record: Mapping[str, Any], kind: str) -> tuple[Mapping[str, str], ...]:
    parts = record.get("context") or []
    if not isinstance(parts, Sequence) or isinstance(parts, str) or bool(parts) != (kind == "context"):
        raise ValueError("kind 'context' needs a list of parts in context, and no other kind has one.")
    if len(parts) > MOST_PARTS:
        raise ValueError(f"context has {len(parts)} parts; at most {MOST_PARTS} are read.")
    for place, part in enumerate(parts, 1):
        if not isinstance(part, Mapping) or len(part) != 1 or not set(part) <= {"image", "text"}:
            raise ValueError(f'part {place} of context must be {{"image": an upload}} or {{"text": words}}.')
        value = next(iter(part.values()))
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROMPT:
            raise ValueError(f"part {place} of context must hold text of at most {LONGEST_PROMPT} letters.")
        if "image" in part and not UPLOAD_ID.fullmatch(value):
            raise ValueError(f"part {place} of context: {value!r} is not the id of an upload.")
    return tuple(dict(part) for part in parts)
