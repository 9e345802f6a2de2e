"""The HTTP interface of our own (docs/http.md), and everything of the server put together."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteError
from starlette.staticfiles import StaticFiles

from reverie.studio import guard, openai, reports, stream
from reverie.studio.copied import command_line, python_code
from reverie.studio.engine import Closing, Engine, Full
from reverie.studio.form import plan_form
from reverie.studio.request import UPLOAD_ID, House
from reverie.studio.store import Store, row_json
from reverie.studio.tail import finished_pictures, trace_lines
from reverie.studio.web import (
    asked,
    client_of,
    engine_of,
    failure,
    form_of,
    json_body,
    row_of,
    settings_of,
    take_upload,
)

PAGE = Path(__file__).parent / "page"
PICTURE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,100}\.png")
MOST_LISTED = 200
BODY_BYTES = 1 << 20


@dataclass(frozen=True)
class Settings:
    """All that `reverie serve` can be told."""

    house: House
    data: Path
    reports: tuple[Path, ...] = ()
    host: str = "127.0.0.1"
    key: str | None = None
    device: str | None = None
    dtype: str | None = None
    keep_days: float | None = None
    keep_bytes: int | None = None
    grace: float = 30.0
    page: Path = field(default=PAGE)


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI application; its worker starts with it and ends with it. ValueError if DATA is in use."""
    engine = Engine(
        Store(settings.data),
        settings.house,
        device=settings.device,
        dtype=settings.dtype,
        keep_days=settings.keep_days,
        keep_bytes=settings.keep_bytes,
        grace=settings.grace,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.close()

    # No /docs: that page would fetch its scripts from elsewhere.
    app = FastAPI(title="Reverie", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.engine, app.state.settings = engine, settings
    for router in (runs, others, openai.router, reports.router):
        app.include_router(router)
    app.add_exception_handler(ValueError, _unusable)
    app.add_exception_handler(openai.Refused, openai.refused)
    app.add_exception_handler(Full, _full)
    app.add_exception_handler(Closing, _closing)
    app.add_exception_handler(sqlite3.OperationalError, _no_room)
    app.add_exception_handler(StarletteError, _refused)
    app.add_exception_handler(Exception, _broken)
    limits = settings.house.limits
    local = guard.is_loopback(settings.host)
    app.add_middleware(
        guard.Guard, key=settings.key, local=local, body_bytes=BODY_BYTES, upload_bytes=limits.upload_bytes
    )
    if (settings.page / "index.html").is_file():
        app.mount("/", StaticFiles(directory=settings.page, html=True))
    return app


# --- Errors are sentences.


async def _unusable(request: Request, error: Exception) -> Response:
    return failure(request, 400 if request.url.path.startswith("/v1/") else 422, " ".join(str(error).split()))


async def _full(request: Request, error: Exception) -> Response:
    assert isinstance(error, Full)
    return failure(request, 429, str(error), {"Retry-After": str(error.seconds)})


async def _closing(request: Request, error: Exception) -> Response:
    return failure(request, 503, "the server is shutting down.", {"Retry-After": "30"})


async def _no_room(request: Request, error: Exception) -> Response:
    return failure(request, 507, f"the server cannot write that down ({error}); make room on its disk.")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteError)
    return failure(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    return failure(request, 500, "the server made a mistake; its log says more.")


# --- Runs.

runs = APIRouter(prefix="/api/runs")


@runs.post("", status_code=201)
async def submit(request: Request) -> dict[str, Any]:
    """A new run: 201 with its id, its seed, and how many runs stand before it."""
    engine = engine_of(request)
    run = engine.submit(await asked(engine, await json_body(request)), client_of(request))
    return {"id": run.id, "seed": run.request.seed, "position": engine.queue.position(run)}


@runs.get("")
async def gallery(
    request: Request, query: str = "", kind: str = "", group: str = "", limit: str = "50", before: str = ""
) -> dict[str, Any]:
    """Runs, the latest first; `next` is the `before` of the following page, null at the end."""
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_LISTED:
        raise ValueError(f"limit={limit!r}: must be a whole number between 1 and {MOST_LISTED}.")
    engine = engine_of(request)
    rows = engine.store.find(query, kind, group, int(limit) + 1, before)
    more, rows = len(rows) > int(limit), rows[: int(limit)]
    listed = [{**row_json(row), "files": [stream.url(row.id, name) for name in row.pictures]} for row in rows]
    return {"runs": listed, "next": rows[-1].id if more else None}


@runs.get("/{run}")
async def one(request: Request, run: str) -> dict[str, Any]:
    """All about a run but its events."""
    engine = engine_of(request)
    row = row_of(request, run)
    live, lines = engine.live.get(run), trace_lines(engine.store.trace(run))
    finished = [line for line in lines if line["event"] == "finished"]
    return {
        **row_json(row),
        "request": row.request.to_json(),
        "attempt": row.attempt,
        "position": engine.queue.position(live) if live is not None and live.state == "queued" else None,
        "files": [stream.url(run, name) for name in finished_pictures(lines)],
        "recipes": [line["recipe"] for line in sorted(finished, key=lambda line: line["image"])],
        "command": command_line(row.request),
        "python": python_code(row.request),
    }


@runs.get("/{run}/events")
async def follow(request: Request, run: str) -> Response:
    """The run as server-sent events, from the beginning or from Last-Event-ID on."""
    engine, row = engine_of(request), row_of(request, run)
    last = request.headers.get("last-event-id")
    if stream.over(last, engine, row):
        return Response(status_code=204)  # tells an EventSource not to come back
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream.server_sent(engine, row, last), media_type="text/event-stream", headers=headers)


@runs.post("/{run}/cancel")
async def cancel(request: Request, run: str) -> dict[str, Any]:
    """Ends a run at once; one that is over stays what it is."""
    engine, row = engine_of(request), row_of(request, run)
    live = engine.live.get(run)
    if live is not None:
        engine.cancel(live)
    return {"id": run, "state": row.state if live is None else live.state}


@runs.delete("/{run}", status_code=204)
async def delete(request: Request, run: str) -> Response:
    row_of(request, run)
    engine_of(request).delete(run)
    return Response(status_code=204)


@runs.get("/{run}/files/{name}")
async def picture(request: Request, run: str, name: str) -> Response:
    """A picture of a run: a preview, what a judge saw, or a finished image with its recipe inside."""
    row = row_of(request, run)
    path = engine_of(request).store.trace(row.id) / name
    if not (PICTURE_NAME.fullmatch(name) and path.is_file()):
        raise HTTPException(404, f"the run {run} has no picture {name!r}.")
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=31536000, immutable"})


# --- Everything else.

others = APIRouter()


@others.post("/api/uploads", status_code=201)
async def upload(request: Request) -> dict[str, Any]:
    """A picture, as the field `file` of a form."""
    engine = engine_of(request)
    async with form_of(request) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise ValueError("send the picture as the file of a form field named 'file'.")
        name, width, height = await take_upload(engine, file.file)
    return {"id": name, "width": width, "height": height}


@others.get("/api/uploads/{name}")
async def uploaded(request: Request, name: str) -> Response:
    """The picture again: ID or ID.png."""
    upload = name.removesuffix(".png")
    path = engine_of(request).store.upload(upload)
    if not (UPLOAD_ID.fullmatch(upload) and path.is_file()):
        raise HTTPException(404, f"there is no upload {upload!r}.")
    return FileResponse(path, media_type="image/png")


@others.get("/api/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served, the first model being the one that is taken if none is named."""
    from reverie.commands.models import describe
    from reverie.models.registry import entries

    engine = engine_of(request)
    listed = [describe(entries()[name]) if name in entries() else {"name": name} for name in engine.house.models]
    return {"models": listed, "judges": engine.house.judges()}


@others.get("/api/plan")
async def plan(request: Request) -> dict[str, Any]:
    return plan_form(engine_of(request).house)


@others.post("/api/login", status_code=204)
async def login(request: Request) -> Response:
    """Exchanges the key for a cookie, for browsers: {"key": ...}."""
    key, body = settings_of(request).key, await json_body(request)
    shown = body.get("key") if isinstance(body, dict) else None
    if key is not None and not (isinstance(shown, str) and guard.same(shown, key)):
        raise HTTPException(401, "the API key is missing or wrong.")
    answer = Response(status_code=204)
    if key is not None:
        answer.set_cookie(guard.COOKIE, guard.token(key), httponly=True, samesite="strict", max_age=30 * 86400)
    return answer


@others.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the server lives."""
    return {"status": "alive"}


@others.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether it can paint at once: 200, or 503 with the reason."""
    engine = engine_of(request)
    if engine.ready:
        return JSONResponse({"status": "ready"})
    why = "the server is shutting down." if engine.closing else engine.worker.unready or "the model is being loaded."
    return failure(request, 503, why)


@others.get("/metrics")
async def metrics(request: Request) -> Response:
    return PlainTextResponse(engine_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
