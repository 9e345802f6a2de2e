"""What the routes share: who asks, what was sent, and errors as sentences."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteError

from reverie.studio import guard, uploads
from reverie.studio.engine import Engine
from reverie.studio.request import Request as Asked
from reverie.studio.request import parse
from reverie.studio.store import Row

if TYPE_CHECKING:
    from reverie.studio.app import Settings

LONGEST_CLIENT = 100


def failure(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(guard.shaped(request.url.path, status, message), status, headers)


def engine_of(request: Request) -> Engine:
    return request.app.state.engine


def settings_of(request: Request) -> Settings:
    return request.app.state.settings


def row_of(request: Request, run: str) -> Row:
    row = engine_of(request).row(run)
    if row is None:
        raise HTTPException(404, f"there is no run {run!r}.")
    return row


def client_of(request: Request, name: str = "") -> str:
    """Who takes turns with whom: the address, and the name that a client gives itself there."""
    address = request.client.host if request.client is not None else ""
    return f"{address} {(name or request.headers.get('x-client', ''))[:LONGEST_CLIENT]}".strip()


async def json_body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise ValueError(f"the body is not JSON ({error}).") from error


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[Any]:
    """The form in the body, its files closed in the end."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ValueError("the body must be a form (multipart/form-data) with the picture in it.")
    try:
        form = await request.form(max_files=32, max_fields=64)
    except StarletteError as error:
        raise ValueError(f"the form cannot be read ({error.detail}).") from error
    try:
        yield form
    finally:
        await form.close()


async def asked(engine: Engine, record: Any) -> Asked:
    """A run that a client asks for, checked; ValueError says what is wrong with it."""
    async with engine.opening:
        return await run_in_threadpool(parse, record, engine.house, engine.store.upload_here)


async def take_upload(engine: Engine, file: Any) -> tuple[str, int, int]:
    """Decodes and files a picture: (id, width, height)."""
    folder, pixels = engine.store.folder / "uploads", engine.house.limits.upload_pixels
    try:
        async with engine.opening:
            name, width, height = await run_in_threadpool(uploads.keep, file, folder, pixels)
    except OSError as error:
        raise HTTPException(507, f"the picture could not be kept ({error.strerror or error}).") from error
    engine.store.add_upload(name, width, height)
    return name, width, height
