"""What is given beside a prompt: a picture to be edited, or pictures and words that lead up to the prompt.

    Inputs.of(picture="photo.png")
    Inputs.of(context=[Path("monkey.png"), "monkey", Path("cat.png"), "cat"])
    prompt, context = from_messages([{"role": "user", "content": [{"type": "image", "image": "cat.png"}, ...]}])

Pictures are opened with limits, turned upright, put on white where they are transparent, and known by the hash of their
pixels. A recipe keeps small ones whole and of all others the hash and the file's name, so that a replay can tell
whether it was given the same picture.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.registry import check_prompt
from reverie.png import LARGEST_AREA, open_picture, picture_hash

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PICTURES = 32
MOST_PARTS = 128
WORKING_AREA = 1 << 22
"""Pixels to which larger pictures are scaled down: no model of ours looks at more."""
LARGEST_COPY = 1 << 16
"""Bytes of a PNG that a recipe keeps whole."""

Part = Any
"""A PIL image, the `Path` of one, or (a string) text that stands between them."""
PICTURE_NAME = re.compile(r"\S+\.(png|jpe?g|webp|gif|bmp|tiff?|avif)", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """An opened picture; two are equal if their pixels are."""

    sha256: str
    """`png.picture_hash` of the picture as it was given, turned upright and on white."""
    image: Image = field(compare=False, repr=False)
    """RGB, of WORKING_AREA pixels at most."""
    file: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, given: Any) -> Picture:
        """From a PIL image, or from a path; ValueError, in one sentence, for what cannot be looked at."""
        from PIL import Image

        if isinstance(given, Picture):
            return given
        if isinstance(given, str | Path):
            upright, file = on_white(open_picture(given)), str(given)
        elif isinstance(given, Image.Image):
            if min(given.size) < 1 or given.width * given.height > LARGEST_AREA:
                raise ValueError(
                    f"a picture of {given.width} x {given.height} pixels: give 1 to {LARGEST_AREA} of them."
                )
            upright, file = on_white(given), None
        else:
            raise ValueError(f"a picture must be a PIL image or the name of a file, not {type(given).__name__}.")
        digest = picture_hash(upright)
        area = upright.width * upright.height
        if area > WORKING_AREA:
            factor = (WORKING_AREA / area) ** 0.5
            size = (max(1, int(upright.width * factor)), max(1, int(upright.height * factor)))
            upright = upright.resize(size, Image.Resampling.LANCZOS)
        return cls(digest, upright, file)

    def to_json(self) -> dict[str, Any]:
        """Hash, file name, and the picture itself where it is small."""
        record: dict[str, Any] = {"sha256": self.sha256} | ({"file": self.file} if self.file else {})
        if self.image.width * self.image.height <= 16 * LARGEST_COPY and picture_hash(self.image) == self.sha256:
            buffer = io.BytesIO()
            self.image.save(buffer, format="PNG", optimize=True)
            if buffer.tell() <= LARGEST_COPY:
                record["png"] = base64.b64encode(buffer.getvalue()).decode()
        return record

    @classmethod
    def from_json(cls, record: Any, found: Mapping[str, Picture]) -> Picture:
        """The same picture again: out of the record, from the files that are `found` (by hash), or where it was.

        ValueError if it is not there, or another picture is there now."""
        if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
            raise ValueError("the recipe is damaged: an input has no proper 'sha256'.")
        digest, file = record["sha256"], record.get("file")
        if digest in found:
            return found[digest]
        if isinstance(record.get("png"), str):
            try:
                kept = cls.of(_decoded(record["png"]))
            except ValueError as error:
                raise ValueError("the recipe is damaged: a picture that it keeps cannot be read.") from error
            if kept.sha256 != digest:
                raise ValueError("the recipe is damaged: a picture that it keeps is not the one that was given.")
            return cls(digest, kept.image, file)
        if found and (not isinstance(file, str) or not Path(file).is_file()):
            others = ", ".join(str(one.file) for one in found.values())
            raise ValueError(f"{others}: none of them is {file or 'the picture'} that was given then, pixel for pixel.")
        if not isinstance(file, str) or not Path(file).is_file():
            named = f"{file} is not here" if file else "a picture that was given from memory is not kept"
            raise ValueError(f"{named}; --picture says where it is now (its pixels must be the same).")
        opened = cls.of(file)
        if opened.sha256 != digest:
            raise ValueError(f"{file} is not the picture that was given then; --picture says where that one is now.")
        return opened


@dataclass(frozen=True)
class Inputs:
    """What one image is painted from besides its prompt. Equal inputs have equal pictures and words."""

    picture: Picture | None = None
    """To be edited."""
    context: tuple[Picture | str, ...] = ()
    """Read before the prompt, in this order."""

    @classmethod
    def of(cls, picture: Any = None, context: Sequence[Part] = ()) -> Inputs:
        """Opens and checks; ValueError, in one sentence, for what cannot be used."""
        if isinstance(context, str | bytes) or not isinstance(context, Iterable):
            raise ValueError("a context is a sequence of pictures and texts; put a single one into a list.")
        parts = list(context)
        if picture is not None and parts:
            raise ValueError("an edit takes one picture and no context; leave one of them out.")
        if len(parts) > MOST_PARTS:
            raise ValueError(f"a context of {len(parts)} parts: give at most {MOST_PARTS}.")
        for part in parts:
            if isinstance(part, str) and PICTURE_NAME.fullmatch(check_prompt(part, "text of the context")):
                raise ValueError(f"{part!r} in the context is text; give Path({part!r}) if the picture is meant.")
        count = sum(not isinstance(part, str) for part in parts)
        if parts and not count:
            raise ValueError("the context holds no picture; give one, or write its words into the prompt.")
        if count > MOST_PICTURES:
            raise ValueError(f"the context holds {count} pictures: give at most {MOST_PICTURES}.")
        opened = (part if isinstance(part, str) else Picture.of(part) for part in parts)
        return cls(None if picture is None else Picture.of(picture), tuple(opened))

    def __bool__(self) -> bool:
        return self.picture is not None or bool(self.context)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, in order."""
        own = () if self.picture is None else (self.picture,)
        return own + tuple(part for part in self.context if isinstance(part, Picture))

    @property
    def parts(self) -> tuple[Any, ...]:
        """The context as generators want it: PIL images and strings."""
        return tuple(part.image if isinstance(part, Picture) else part for part in self.context)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {} if self.picture is None else {"picture": self.picture.to_json()}
        if self.context:
            record["context"] = [part if isinstance(part, str) else part.to_json() for part in self.context]
        return record

    @classmethod
    def from_json(cls, record: Any, files: Sequence[str | Path] = ()) -> Inputs:
        """What `to_json` wrote; `files` are looked through for pictures that are not kept whole, by their pixels."""
        if not isinstance(record, dict) or not isinstance(record.get("context", []), list):
            raise ValueError("the recipe is damaged: its inputs are no object with a picture or a context.")
        found = {picture.sha256: picture for picture in map(Picture.of, files)}
        picture = record.get("picture")
        context = [
            part if isinstance(part, str) else Picture.from_json(part, found) for part in record.get("context", [])
        ]
        inputs = cls(None if picture is None else Picture.from_json(picture, found), tuple(context))
        strangers = set(found) - {one.sha256 for one in inputs.pictures}
        if strangers:
            raise ValueError(f"{found[min(strangers)].file} is none of the pictures that this one was painted from.")
        return inputs


NOTHING = Inputs()


def from_messages(messages: Sequence[Any]) -> tuple[str, list[Part]]:
    """The prompt and its context out of a list of chat messages, as servers of chat models take them.

    Each message is a mapping with `content`: text, or a list of {"type": "text", "text": ...}, {"type": "image",
    "image": a PIL image or path} and {"type": "image_url", "image_url": {"url": "data:..."}}. The last text is the
    prompt. Roles other than `user` are refused; nothing is fetched from the network."""
    parts: list[Part] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role", "user") != "user":
            raise ValueError("messages must be mappings with the role 'user' and a content.")
        content = message.get("content")
        pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(pieces, list | tuple):
            raise ValueError("the content of a message is text, or a list of its parts.")
        parts += [_part(piece) for piece in pieces]
    if not parts or not isinstance(parts[-1], str):
        raise ValueError("the messages must end with a text: it says what should be in the picture.")
    return parts[-1], parts[:-1]


def request_of(prompt: Any, picture: Any, context: Sequence[Part]) -> tuple[str, Inputs]:
    """A prompt and what stands beside it, opened and checked; the prompt may be a list of chat messages."""
    if not isinstance(prompt, str) and isinstance(prompt, Sequence):
        if context:
            raise ValueError("messages hold their own context; leave context out.")
        prompt, context = from_messages(prompt)
    return prompt, Inputs.of(picture, context)


def _part(piece: Any) -> Part:
    kind = piece.get("type") if isinstance(piece, Mapping) else None
    if kind == "text" and isinstance(piece.get("text"), str):
        return piece["text"]
    if kind == "image" and piece.get("image") is not None:
        image = piece["image"]
        return Path(image) if isinstance(image, str) else image
    if kind == "image_url":
        held = piece.get("image_url")
        url = held.get("url") if isinstance(held, Mapping) else held
        if isinstance(url, str) and url.startswith("data:image/") and ";base64," in url:
            return _decoded(url.split(";base64,", 1)[1])
        raise ValueError("an image_url must be a data: URL with the picture in base64; nothing is fetched.")
    raise ValueError("a part of a message is a text, an image, or an image_url.")


def _decoded(data: str) -> Image:
    """A picture out of base64; ValueError if it is none."""
    try:
        return open_picture(io.BytesIO(base64.b64decode(data, validate=True)))
    except binascii.Error as error:
        raise ValueError("a picture in base64 is damaged; encode it again.") from error


def on_white(picture: Image) -> Image:
    """RGB, upright as its camera says, and on white where it is transparent."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layers = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return upright.convert("RGB")
