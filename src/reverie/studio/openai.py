"""The images endpoints as clients of OpenAI know them: generations, edits, and the list of models.

What such a client may say is read by `Wishes`; fields of our own (preset, think, seed and all others of a plan) go
beside it, as `extra_body` in the official Python client. Options that change nothing here are accepted (quality,
moderation, user); those that cannot be met are refused, in the shape of OpenAI's errors.
"""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from reverie.png import read_recipe, save_png
from reverie.reason import Plan
from reverie.studio import guard, stream
from reverie.studio.engine import Engine, Live
from reverie.studio.request import PLAN_FIELDS
from reverie.studio.web import asked, client_of, engine_of, failure, form_of, json_body, settings_of, take_upload

IGNORED = ("quality", "moderation", "style", "user", "safety_identifier", "input_fidelity", "complexity")
OURS = ("preset", "seed", "group", *PLAN_FIELDS)
READ = ("prompt", "model", "n", "size", "response_format", "output_format", "output_compression", "background")
STREAMING = ("stream", "partial_images")
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
LARGEST = 4096
MOST_PARTIAL = 3
LISTEN = 1.0
"""Seconds after which is looked whether the client is still there."""
SIGNED_SECONDS = 3600
NUMBERS = {"n": "int", "output_compression": "int", "partial_images": "int", "seed": "int", "stream": "bool"}

router = APIRouter(prefix="/v1")


class Refused(Exception):
    """An option that cannot be met: the sentence, which option, and OpenAI's code for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(message)
        self.param, self.code, self.status = param, code, status


@dataclass(frozen=True)
class Wishes:
    """How the client wants its pictures."""

    url: bool = False
    size: int | None = None
    """Of both sides; None for the model's own."""
    format: str = "png"
    compression: int = 100
    streams: bool = False
    partial: int = 0
    made: int = 0
    """When it was asked, in seconds since 1970."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Wishes:
        """Raises Refused for an option that is unknown or cannot be met."""
        known = (*READ, *IGNORED, *STREAMING, *OURS)
        for name in record:
            if name not in known:
                raise Refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        response, output = record.get("response_format") or "b64_json", record.get("output_format") or "png"
        if response not in ("url", "b64_json"):
            raise Refused(f"response_format={response!r}: must be url or b64_json.", "response_format", "invalid_value")
        if output not in FORMATS:
            raise Refused(f"output_format={output!r}: must be one of {', '.join(FORMATS)}.", "output_format")
        if response == "url" and output != "png":
            raise Refused("only png pictures have a url; ask for b64_json.", "output_format")
        if record.get("background") not in (None, "auto", "opaque"):
            raise Refused("the background of pictures is always opaque here.", "background", "invalid_value")
        compression = _whole(record, "output_compression", 0, 100, 100)
        partial = _whole(record, "partial_images", 0, MOST_PARTIAL, 0)
        streams = record.get("stream") or False
        if not isinstance(streams, bool):
            raise Refused(f"stream={streams!r}: must be true or false.", "stream")
        size = _size(record.get("size"))
        return cls(response == "url", size, output, compression, streams, partial, int(time.time()))


def _whole(record: Mapping[str, Any], name: str, least: int, most: int, usual: int) -> int:
    value = usual if record.get(name) is None else record[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refused(f"{name}={value!r}: must be a whole number between {least} and {most}.", name, "invalid_value")
    return value


def _size(text: Any) -> int | None:
    """The side of a square; every model here paints squares unless its own configuration says otherwise."""
    if text is None or text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text) if isinstance(text, str) else None
    if found is None or found[1] != found[2] or not 1 <= int(found[1]) <= LARGEST:
        raise Refused(
            f"size={text!r}: must be auto, or a square such as 512x512 of at most {LARGEST}.", "size", "invalid_value"
        )
    return int(found[1])


# --- The endpoints.


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    return {"object": "list", "data": [_model(name) for name in engine_of(request).house.models]}


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    _check_model(engine_of(request), name)
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "reverie"}


@router.post("/images/generations")
async def generations(request: Request) -> Response:
    record = await json_body(request)
    if not isinstance(record, Mapping):
        raise Refused("the body must be a JSON object.")
    return await _painted(request, record, {})


@router.post("/images/edits")
async def edits(request: Request) -> Response:
    async with form_of(request) as form:
        pictures = [value for name in ("image", "image[]") for value in form.getlist(name)]
        if any(name in form for name in ("mask", "markup")):
            raise Refused("masks are not supported; say in the prompt what shall change.", "mask")
        if len(pictures) != 1 or not isinstance(pictures[0], UploadFile):
            raise Refused("send exactly one picture as the file 'image'.", "image", "invalid_value")
        record = {name: _from_text(name, value) for name, value in form.items() if name not in ("image", "image[]")}
        Wishes.of(record)  # before the picture is decoded
        upload, _, _ = await take_upload(engine_of(request), pictures[0].file)
    return await _painted(request, record, {"kind": "edit", "picture": upload})


def _from_text(name: str, value: Any) -> Any:
    """A field of a form as JSON would have had it; what cannot be read stays text, and is refused where it is used."""
    kinds = NUMBERS | {field.name: str(field.type).split(" ")[0] for field in fields(Plan)}
    kind = kinds.get(name, "str")
    try:
        if kind in ("int", "float"):
            return int(value) if kind == "int" else float(value)
        return {"true": True, "false": False}[value] if kind == "bool" else value
    except (ValueError, KeyError):
        return value


async def _painted(request: Request, record: Mapping[str, Any], own: Mapping[str, Any]) -> Response:
    wishes, engine = Wishes.of(record), engine_of(request)
    if record.get("model") is not None:
        _check_model(engine, record["model"])
    passed = {name: record[name] for name in ("prompt", "model", "n", *OURS) if record.get(name) is not None}
    user = record.get("user") or record.get("safety_identifier")
    name = user if isinstance(user, str) else ""
    run = engine.submit(await asked(engine, {**passed, **own}), client_of(request, name))
    if wishes.streams:
        return StreamingResponse(_streamed(request, engine, run, wishes), media_type="text/event-stream")
    finished = []
    async for _, event in _followed(request, engine, run):
        if event["event"] == "finished":
            finished.append(event)
        elif event["event"] in ("failed", "cancelled"):
            message = event.get("error") or "the run was cancelled."
            return failure(request, 500, message)
    if len(finished) < run.request.n:
        return Response(status_code=499)  # the client has gone, and nobody reads this
    finished.sort(key=lambda event: event["image"])
    data = [await run_in_threadpool(_entry, request, engine, run.id, event, wishes) for event in finished]
    size = await run_in_threadpool(_said_size, engine, run.id, finished[0], wishes)
    about = {"output_format": wishes.format, "background": "opaque", "size": size}
    return JSONResponse({"created": wishes.made, "data": data, **about}, headers={"X-Reverie-Run": run.id})


async def _followed(request: Request, engine: Engine, run: Live) -> AsyncIterator[stream.Told]:
    """The events of a run that this client alone waits for: if it goes, the run is cancelled."""
    row = engine.row(run.id)
    assert row is not None
    try:
        looked = time.monotonic()
        async for item in stream.told(engine, row, pulse=LISTEN):
            if item is not None:
                yield item
            # By the clock, and not only in silence: a run may have much to tell.
            if time.monotonic() - looked >= LISTEN:
                looked = time.monotonic()
                if await request.is_disconnected():
                    break
    finally:
        if engine.live.get(run.id) is run:
            engine.cancel(run)


async def _streamed(request: Request, engine: Engine, run: Live, wishes: Wishes) -> AsyncIterator[str]:
    """Partial images at even distances, then each finished one, as OpenAI's events."""
    sent = 0
    async for _, event in _followed(request, engine, run):
        if event["event"] == "preview" and sent < wishes.partial:
            due = event["step"] * (wishes.partial + 1) >= event["steps"] * (sent + 1)
            if due and event["step"] < event["steps"] and event.get("files") and event["files"][0]:
                yield _event("partial_image", engine, run.id, event["files"][0], wishes, {"partial_image_index": sent})
                sent += 1
        elif event["event"] == "finished":
            usage: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
            usage |= {"input_tokens_details": {"text_tokens": 0, "image_tokens": 0}}
            yield _event("completed", engine, run.id, event["files"][0], wishes, {"usage": usage})
        elif event["event"] in ("failed", "cancelled"):
            message = event.get("error") or "the run was cancelled."
            error = guard.shaped("/v1/", 500, message)
            yield f"event: error\ndata: {json.dumps(error)}\n\n"


def _event(kind: str, engine: Engine, run: str, file: str, wishes: Wishes, more: Mapping[str, Any]) -> str:
    content = _content(_sized(engine, run, file, wishes), wishes)
    about = {"quality": "auto", "background": "opaque", "output_format": wishes.format, "created_at": wishes.made}
    side = _side(content)
    record = {"type": f"image_generation.{kind}", "b64_json": base64.b64encode(content).decode(), "size": side, **about}
    return f"event: {record['type']}\ndata: {json.dumps(record | dict(more))}\n\n"


# --- Pictures.


def _entry(request: Request, engine: Engine, run: str, event: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    path = _sized(engine, run, event["files"][0], wishes)
    entry: dict[str, Any] = {}
    if wishes.url:
        address = stream.url(run, path.name)
        entry["url"] = str(request.base_url).rstrip("/") + guard.signed(
            address, settings_of(request).key, SIGNED_SECONDS
        )
    else:
        entry["b64_json"] = base64.b64encode(_content(path, wishes)).decode()
    if event["recipe"].get("rewritten"):
        entry["revised_prompt"] = event["recipe"]["rewritten"]
    return entry


def _sized(engine: Engine, run: str, url: str, wishes: Wishes) -> Path:
    """The picture in the size that is wanted, beside the original, with the same recipe."""
    from PIL import Image

    path = engine.store.trace(run) / url.rsplit("/", 1)[1]
    if wishes.size is None:
        return path
    sized = path.with_name(f"{path.stem}-{wishes.size}.png")
    if not sized.is_file():
        with Image.open(path) as picture:
            recipe = read_recipe(path) if "reverie" in picture.info else None
            save_png(picture, sized, recipe, wishes.size)
    return sized


def _content(path: Path, wishes: Wishes) -> bytes:
    from PIL import Image

    if wishes.format == "png":
        return path.read_bytes()
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, FORMATS[wishes.format], quality=wishes.compression)
    return buffer.getvalue()


def _side(content: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return f"{picture.width}x{picture.height}"


def _said_size(engine: Engine, run: str, event: Mapping[str, Any], wishes: Wishes) -> str:
    return _side(_sized(engine, run, event["files"][0], wishes).read_bytes())


def _check_model(engine: Engine, name: Any) -> None:
    if name not in engine.house.models:
        served = ", ".join(engine.house.models)
        raise Refused(f"The model {name!r} does not exist; there is {served}.", "model", "model_not_found", 404)


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a Refused."""
    assert isinstance(error, Refused)
    return JSONResponse(guard.shaped("/v1/", error.status, str(error), error.param, error.code), error.status)
