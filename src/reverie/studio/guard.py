"""Who may come in: the key, the origin, the size of bodies. Plain ASGI around the whole server, so that nothing is read
before it is allowed, and streams pass through as they are.

A page of another origin must not use a studio on this machine through the user's browser: requests that name a foreign
origin are refused, and on loopback so is every Host that is not this machine (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = "reverie_key"
OPEN = ("/healthz", "/readyz", "/api/login")
"""Paths that need no key, beside the page itself, which holds no secrets."""
KEYED = ("/api/", "/v1/", "/metrics", "/openapi.json")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
MULTIPART_ROOM = 1 << 20
"""What a form may hold beside its files."""


POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SAFE = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of every answer: a browser takes nothing for what it is not, runs and fetches nothing that is not ours, and
nobody shows the page inside another one."""
MOST_DRAINED = 256 << 20


class TooLarge(Exception):
    """A body that is longer than allowed."""


@dataclass(frozen=True)
class Guard:
    """key: what clients must show, None for nothing. local: whether the server is bound to loopback."""

    app: App
    key: str | None
    local: bool
    body_bytes: int
    upload_bytes: int

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope["path"], scope["query_string"].decode("latin-1"), headers)
        if refused is not None:
            await drained(receive)
            await answer(send, scope["path"], *refused)
            return
        form = headers.get("content-type", "").startswith("multipart/")
        limit = self.upload_bytes + MULTIPART_ROOM if form else self.body_bytes
        too_large = (413, f"the body is larger than the {limit} bytes that are read here.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            await drained(receive)
            await answer(send, scope["path"], *too_large)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SAFE]
            await send(message)

        try:
            await self.app(scope, limited(receive, limit), watched)
        except TooLarge:
            if not started:
                await drained(receive)
                await answer(send, scope["path"], *too_large)

    def _refused(self, path: str, query: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = urlsplit("//" + headers.get("host", ""))
        if self.local and _name(host.netloc) not in LOCAL_NAMES:
            return 403, "this server answers to localhost only; start it with --host to open it to others."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host.netloc:
            return 403, "pages of other origins may not use this server."
        if self.key is None or path in OPEN or not path.startswith(KEYED):
            return None
        return None if self._known(path, query, headers) else (401, "the API key is missing or wrong.")

    def _known(self, path: str, query: str, headers: dict[str, str]) -> bool:
        if self._signed(path, query):
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if shown:
            return same(shown, self.key or "")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and same(cookie.value, token(self.key or ""))

    def _signed(self, path: str, query: str) -> bool:
        """Whether this is an address that `signed` gave out, and in time."""
        until, sign = (parse_qs(query).get(name, [""])[0] for name in ("until", "sign"))
        if not (until.isdecimal() and sign and int(until) >= time.time()):
            return False
        return same(sign, token(self.key or "", f"{path} {until}"))


def signed(path: str, key: str | None, seconds: int) -> str:
    """The address of a picture that can be fetched without the key for so long."""
    if key is None:
        return path
    until = int(time.time()) + seconds
    return f"{path}?until={until}&sign={token(key, f'{path} {until}')}"


def same(a: str, b: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(a.encode(), b.encode())


def token(key: str, purpose: str = "studio") -> str:
    """What shows that somebody had the key: what a browser keeps instead of it, or the signature of an address."""
    return hmac.new(key.encode(), f"reverie {purpose}".encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def limited(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises TooLarge once a body is longer than it said or may be."""
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLarge
        return message

    return counted


async def drained(receive: Receive) -> None:
    """Lets a body that nobody wants run out, within reason: who is cut off while sending never reads the answer."""
    read = 0
    while read < MOST_DRAINED:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def answer(send: Send, path: str, status: int, message: str) -> None:
    """An error in the shape of the interface that was called."""
    body = json.dumps(shaped(path, status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def shaped(path: str, status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """{"error": sentence}, or the object that clients of OpenAI expect under /v1."""
    if not path.startswith("/v1/"):
        return {"error": message}
    kinds = {401: ("invalid_request_error", "invalid_api_key"), 429: ("rate_limit_exceeded", "rate_limit_exceeded")}
    kind, usual = kinds.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    return {"error": {"message": message, "type": kind, "param": param, "code": code or usual}}


def _name(netloc: str) -> str:
    """The host without its port and brackets."""
    return (urlsplit("//" + netloc).hostname or "").lower()
