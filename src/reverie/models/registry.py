"""Which models there are, and what a name, a hub id or a folder stands for. Imports nothing heavy, so that a mistyped
name is refused at once.

The table is `models.yaml` beside this file. A folder says what it is in its config.json; hub ids that the table does
not list are allowed, and looked at when they are here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from reverie.models import judge_names
from reverie.models.diffusion_adapters import read_adapters
from reverie.models.diffusion_checkpoint import INDEX, check_library, fetch_pipeline, read_index
from reverie.reason import did_you_mean

PACKAGE = Path(__file__).resolve().parent.parent
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FAMILIES = {
    "multi_modality": "janus", "janus": "janus", "llamagen": "llamagen", "showo": "showo", "Showo": "showo",
    "thinkdiff": "thinkdiff",
}  # fmt: skip
"""`model_type` (or else `_class_name`) of a config.json to the family that can load it."""
JUDGES = {"LlavaQwenForCausalLM": "llava", "LlavaOnevisionForConditionalGeneration": "llava"}
"""The same for models that look and judge but do not paint, by `architectures`: their authors' types are ambiguous."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one parameter."""
PACKING_LIMIT = 4 << 30
"""Bytes of a network beyond which it is not packed (see models/rows.py): that keeps a second copy of its matrices."""
PACKED = {"layers": ("language_model.model.layers.", "layers."), "head": ("gen_head.",)}
"""The networks that are packed while a CPU paints: names for models.yaml, and how their tensors' names begin."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")


@dataclass(frozen=True)
class Entry:
    """One row of models.yaml."""

    name: str
    kind: str
    """`painter`, `judge` or `inspector`."""
    family: str
    summary: str
    licence: str
    source: str
    shipped: str | None = None
    """Folder inside the package."""
    id: str | None = None
    """Hub id it is fetched from."""
    parameters: int | None = None
    matrices: dict[str, int] | None = None
    """Parameters of each network of PACKED, matrices only, where no folder tells."""
    thinker: str = "instruct"
    files: tuple[str, ...] = ()
    """What is fetched of that hub id, where not all of it."""
    text_encoder: str | None = None
    """Hub id of the text encoder that the model paints from, where it lies elsewhere."""
    judge: str = "instruct"

    @property
    def folder(self) -> Path | None:
        return PACKAGE / self.shipped if self.shipped else None

    def packing(self, dtype: str) -> int:
        """Bytes of the second copy of its matrices that painting on a CPU keeps."""
        return packing_bytes(self.matrices or (count_matrices(self.folder) if self.folder else {}), dtype)

    def count(self) -> int | None:
        """Parameters: as listed, or counted in the headers of the shipped weights; None if there are none yet."""
        return self.parameters if self.parameters or self.folder is None else count_parameters(self.folder)


@dataclass(frozen=True)
class Source:
    """What a name stands for: a folder, or a hub id that has yet to be fetched."""

    name: str
    """As the user wrote it; goes into recipes."""
    family: str | None
    """None for a hub id that the table does not list: its config.json will tell."""
    folder: Path | None = None
    id: str | None = None
    thinker: str = "instruct"
    judge: Any = "instruct"
    """The wording it is asked in as a judge: a name, or the wording itself (see judges/wordings.yaml)."""
    config: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    files: tuple[str, ...] = ()
    text_encoder: str | None = None
    dialogue: str = ""
    """How it is asked while it paints, where not in the thinker's wording (see dialogue.yaml)."""
    adapters: tuple[Path, ...] = ()
    """Folders of adapters that are added to a diffusion model, in this order."""

    @property
    def judged_by(self) -> str | None:
        """Whom its checkpoint names to judge its pictures, for painters that cannot themselves."""
        return (self.config.get("reverie") or {}).get("judged_by")

    def count(self) -> int | None:
        """Parameters, if they can be known without loading or fetching anything."""
        listed = next((e.parameters for e in entries().values() if e.id and e.id == self.id), None)
        return listed or (None if self.folder is None else count_parameters(self.folder))

    def packing(self, dtype: str) -> int:
        """Bytes of the second copy of its matrices that painting on a CPU keeps, as far as the folder tells."""
        return packing_bytes(count_matrices(self.folder) if self.folder else {}, dtype)


@cache
def entries() -> dict[str, Entry]:
    """The table, by name."""
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "models.yaml").read_text("utf-8"))
    return {name: Entry(name, **row | {"files": tuple(row.get("files", ()))}) for name, row in table.items()}


def resolve(name: str | Path, kind: str = "painter") -> Source:
    """What `name` stands for: a name of the table, a folder, or a hub id. ValueError, in one sentence, if nothing.

    kind: `painter`, or `judge`, which every model of the table can be, and all that judge_names.py tells of."""
    text = str(name)
    if not text.strip():
        raise ValueError("the name of the model is empty; `reverie models` lists what there is.")
    if kind == "judge" and (family := judge_names.family_of(text)):
        return _chat(text, Path(text)) if family == "chat" else Source(text, family)
    entry = entries().get(text) or next((e for e in entries().values() if e.id and e.id.lower() == text.lower()), None)
    if entry is not None:
        return _listed(entry, text, kind)
    if Path(text).is_dir():
        source = from_folder(Path(text))
        return check_paints(source) if kind == "painter" else source
    if Path(text).exists():
        raise ValueError(f"{text} is a file; a model is a folder with a config.json, a name or a hub id.")
    if HUB_ID.fullmatch(text):
        return Source(text, None, id=text)
    painters = [entry.name for entry in entries().values() if kind in (entry.kind, "judge")]
    raise ValueError(
        f"unknown model {text!r}{did_you_mean(text, painters)}; `reverie models` lists them, "
        f"and a hub id has the form owner/name."
    )


def check_paints(source: Source) -> Source:
    """ValueError for a model that only looks and judges."""
    if source.family not in (*FAMILIES.values(), "diffusion"):
        raise ValueError(f"{source.name} judges pictures and does not paint; name it with --judge.")
    return source


def from_folder(folder: Path, name: str | None = None, thinker: str = "instruct", judge: Any = None) -> Source:
    """A checkpoint on disk, judged by its config.json, where `"reverie": {"thinker": ..., "judge": ...}` names its
    wordings."""
    path = folder / "config.json"
    if (about := read_adapters(folder)) is not None:
        return _adapted(about, name or str(folder))
    if (index := read_index(folder)) is not None:
        own = index.get("_reverie") or {}
        named = {"thinker": own.get("thinker", "t2g"), "judge": own.get("judge", "instruct")}
        return Source(name or str(folder), "diffusion", folder, config=index, **named)
    if not path.is_file() and (settings := _bare_llamagen(folder)) is not None:
        return Source(name or str(folder), "llamagen", folder, thinker=thinker, config=settings)
    if not path.is_file():
        from reverie.models.showo_parts import model_folder

        if (inner := model_folder(folder)) is not None:
            return from_folder(inner, name or str(folder), thinker, judge)
        raise ValueError(f"{folder} holds no config.json, so it is no checkpoint; give the folder that contains it.")
    try:
        config = json.loads(path.read_text("utf-8"))
        kind = config.get("model_type") or config.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a valid configuration ({error}); fetch it again.") from error
    family = JUDGES.get((config.get("architectures") or [""])[0]) or FAMILIES.get(kind)
    if family is None:
        raise ValueError(f"{path} says model_type {kind!r}; this version can load {', '.join(FAMILIES)}.")
    if family == "thinkdiff":
        from reverie.models.thinkdiff_checkpoint import ThinkDiffConfig

        ThinkDiffConfig.read(folder)
        check_library()
    elif not any(child.suffix in WEIGHT_SUFFIXES for child in folder.iterdir()):
        raise ValueError(f"{folder} holds no weights ({', '.join(WEIGHT_SUFFIXES)}); fetch the checkpoint again.")
    own = config.get("reverie") or {}
    thinker = own.get("thinker", thinker)
    usual = "verify-and-reinforce" if family == "llava" else thinker
    wordings = (thinker, own.get("judge") or judge or usual)
    return Source(name or str(folder), family, folder, None, *wordings, config, dialogue=own.get("dialogue", ""))


def _adapted(about: dict[str, Any], name: str) -> Source:
    """A diffusion model with adapters, as diffusion_adapters.py reads their folder."""
    base = resolve(about["base"])
    if base.family not in (None, "diffusion"):
        raise ValueError(f"{name} holds adapters for {base.name}, which is no diffusion model.")
    settings = {**(base.config.get("_reverie") or {}), **about["settings"]}
    return replace(
        base, name=name, thinker=settings.get("thinker", base.thinker), config={**base.config, "_reverie": settings},
        adapters=(*base.adapters, *about["folders"]),
    )  # fmt: skip


def _bare_llamagen(folder: Path) -> dict[str, Any] | None:
    """The args.json, if any, of a folder with LlamaGen's weights as the authors publish them; None for others. Their
    files come without a config.json, but the image tokenizer's name gives them away."""
    settings = folder / "args.json"
    try:
        found = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{settings} is not valid JSON ({error}); write it again.") from error
    known = isinstance(found, dict) and found.get("gpt_type") == "t2i"
    return found if known or any(folder.glob("vq_ds*_t2i.pt")) else None


def fetched(source: Source) -> Source:
    """The same model with its folder on disk; a hub id is downloaded now (or found in the local cache)."""
    if source.folder is not None:
        return source
    from reverie.models.janus_checkpoint import resolve as fetch

    known = source.judge if source.family else None  # of an id that is not listed its folder will tell
    name = source.id or source.name
    if source.family == "diffusion":
        check_library()
    folder = fetch_pipeline(name) if source.family in (None, "diffusion") else None
    folder = folder or fetch(name, source.files or None)
    found = replace(from_folder(folder, source.name, source.thinker, known), text_encoder=source.text_encoder)
    found = replace(found, adapters=source.adapters)
    if found.family == "showo":
        from reverie.models.showo_checkpoint import fetch_parts

        fetch_parts()
    return found


def cached(hub_id: str) -> bool:
    """Whether the hub's local cache holds it."""
    return bool(snapshots(hub_id))


def snapshots(hub_id: str) -> list[Path]:
    """Its folders in the hub's local cache, by the documented layout: the hub library takes long to import."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    root = cache / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return sorted({path.parent for pattern in ("*/config.json", "*/*.pt", f"*/{INDEX}") for path in root.glob(pattern)})


def weights_in(folder: Path, suffixes: Sequence[str] = WEIGHT_SUFFIXES) -> list[Path]:
    """The weight files of a checkpoint, those of a text encoder inside it included; all parts' of a pipeline, and of a
    ThinkDiff what lies inside its folder."""
    if (folder / INDEX).is_file():
        return sorted(path for path in folder.glob("*/*") if path.suffix in suffixes)
    if any(folder.glob(f"*/{INDEX}")):
        inside = (path for pattern in ("*", "*/*", "*/*/*") for path in folder.glob(pattern))
        return sorted(path for path in inside if path.suffix in suffixes)
    places = (folder, folder / "text_encoder", folder / "flan-t5-xl")
    return sorted(path for place in places for path in place.glob("*") if path.suffix in suffixes)


def fingerprint(folder: Path, adapters: Sequence[Path] = ()) -> str:
    """Tells weights apart without reading them whole: config, names, sizes, both ends of each file (16 hex digits)."""
    settings = next((p for name in (INDEX, "config.json", "args.json") if (p := folder / name).is_file()), None)
    digest = hashlib.sha256(settings.read_bytes() if settings else b"")
    for path in [*weights_in(folder), *(path for one in adapters for path in sorted(one.glob("*/*.safetensors")))]:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            # The header of a safetensors file describes every tensor; the tail is values, which training changes.
            digest.update(file.read(65536))
            file.seek(max(0, size - 65536))
            digest.update(file.read(65536))
    return digest.hexdigest()[:16]


def check_prompt(prompt: str, what: str = "prompt", silent: bool = False) -> str:
    """The prompt, if it can be painted from as far as can be said without a model. silent: it may be empty."""
    if not isinstance(prompt, str):
        raise ValueError(f"the {what} must be text, not {type(prompt).__name__}.")
    if not prompt.strip() and not silent:
        raise ValueError(f"the {what} is empty; say what should be in the picture.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the {what} is not valid Unicode text (character {error.start + 1}); type it again."
        ) from error
    return prompt


def whole_folder(folder: Path) -> Path:
    """Where the tokenizer lies: an adapter has that of its base."""
    if not (folder / "adapter.safetensors").is_file():
        return folder
    from reverie.models.low_rank import whole

    return whole(folder)


def _listed(entry: Entry, text: str, kind: str) -> Source:
    if kind not in (entry.kind, "judge"):
        article = "an" if entry.kind[0] in "aeiou" else "a"
        raise ValueError(f"{text} is {article} {entry.kind} and does not paint; `reverie models` says which models do.")
    if entry.folder is None:
        shared = {"files": entry.files, "text_encoder": entry.text_encoder, "judge": entry.judge}
        return Source(text, entry.family, id=entry.id, thinker=entry.thinker, **shared)  # type: ignore[arg-type]
    if not entry.folder.is_dir():
        raise ValueError(
            f"the weights of {text} ({entry.source}) are not in this installation; reinstall, or train them."
        )
    if entry.family == "inspector":
        return Source(text, entry.family, entry.folder)
    if entry.family == "chat":
        return _chat(text, entry.folder)
    return from_folder(entry.folder, text, entry.thinker)


def _chat(name: str, folder: Path) -> Source:
    """A chat model of transformers; its config.json may name the wording in which it judges."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    wording = (config.get("reverie") or {}).get("judge") or "instruct"
    return Source(name, "chat", folder, judge=wording, config=config)


def count_parameters(folder: Path) -> int | None:
    """Elements of all tensors in a folder, from the headers of its safetensors files; None if it holds none. Of
    adapters those of their base, to whose weights they are added."""
    folder = whole_folder(folder)
    if (about := read_adapters(folder)) is not None:
        return resolve(about["base"]).count()
    shapes = (shape for path in weights_in(folder, (".safetensors",)) for _, shape in _header(path))
    return sum(math.prod(shape) for shape in shapes) or None


def count_matrices(folder: Path) -> dict[str, int]:
    """Elements of the matrices of each network of PACKED, from the same headers; empty networks are left out."""
    folder = whole_folder(folder)
    tensors = [item for path in folder.glob("*.safetensors") for item in _header(path)]
    counts = {
        name: sum(math.prod(shape) for key, shape in tensors if key.startswith(start) and len(shape) == 2)
        for name, start in PACKED.items()
    }
    return {name: count for name, count in counts.items() if count}


def packing_bytes(matrices: dict[str, int], dtype: str) -> int:
    """What packing adds on a CPU; networks above PACKING_LIMIT stay as they are, and so does all of float16."""
    sizes = [count * BYTES[dtype] for count in matrices.values()]
    return 0 if dtype == "float16" else sum(size for size in sizes if size <= PACKING_LIMIT)


def size_text(source: Source, count: int, dtype: str | None) -> str:
    """Parameters and the memory that they take, for people; in both usual types where the device will decide."""
    sizes = [
        f"{with_packing(count * BYTES[name], source.packing(name))} in {name}"
        for name in ([dtype] if dtype else ["float32", "bfloat16"])
    ]
    return f"{number_text(count)} parameters, {' or '.join(sizes)}"


def with_packing(weights: int | None, packing: int) -> str:
    """Memory for people: weights, and in brackets what a CPU needs beyond them."""
    return memory_text(weights) + (f" (+{memory_text(packing)} on a CPU)" if packing >= 2**19 else "")


def number_text(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def memory_text(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _header(path: Path) -> Iterator[tuple[str, list[int]]]:
    """(tensor name, shape) from the header of a safetensors file; nothing if it is not one."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < 2**27 else {}
        except ValueError:
            return  # a damaged file is reported when it is loaded
    for name, about in header.items():
        if name != "__metadata__":
            yield name, about["shape"]
