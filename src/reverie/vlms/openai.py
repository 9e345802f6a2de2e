"""A model behind any OpenAI-compatible server (vLLM, SGLang, Ollama, hosted models) as a `VLM`: the served judge.

    judge = ServedVLM("Qwen/Qwen3-VL-8B-Instruct", "http://localhost:8000/v1", cache="runs/answers")
    judge.write([Message("user", "What is this?", (picture,))])

Servers fail, stall and talk nonsense. A request that got no answer is sent again after a pause that doubles each time;
an answer is written to the cache before anybody sees it, so a run that stops loses nothing and asks nothing twice; a
budget bounds what is sent. Left out on purpose: streaming, and hidden states, which servers do not show.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from ..png import picture_hash
from . import IMAGE, Message, Messages, seeds_of
from .answers import AnswerCache, Reply, key_of

if TYPE_CHECKING:
    from torch import Tensor

NEVER = {401, 403, 404}  # statuses that every question would get
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}  # statuses after which another try may help
ALTERNATIVES = 20  # the most that servers name for a token
LARGEST = 64 << 20  # bytes of an answer; more is nonsense


class NoAnswer(ConnectionError):
    """A server gave no usable answer, however often it was asked."""


class Unusable(NoAnswer):
    """There is no server, or it knows neither the key nor the model: no other question would fare better."""


class BudgetSpent(Unusable):
    """Nothing more may be asked. What was answered before is in the cache."""


@dataclass
class Usage:
    """What was spent since the start. requests: sent, failed ones included; cached: answers that were on disk."""

    requests: int = 0
    failures: int = 0
    answers: int = 0
    cached: int = 0
    question_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True)
class Budget:
    """The most requests to send, and tokens to pay, questions and answers together. None is no bound. Requests that
    are under way when the tokens run out are still finished."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Patience:
    """timeout: seconds for one request, as a whole. tries: how often each is sent. pause: seconds before the second
    try, doubled before each further one up to `longest`; a server's own Retry-After counts, up to `longest` too."""

    timeout: float = 120.0
    tries: int = 5
    pause: float = 1.0
    longest: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 1 or self.timeout <= 0 or self.pause < 0 or self.longest < 0:
            raise ValueError("Patience needs tries >= 1, timeout > 0, and pauses that are not negative.")


@dataclass(frozen=True)
class Pictures:
    """How pictures are sent: as PNG, or as JPEG of some quality; shrunk to fit a square of `side` pixels, if given."""

    format: str = "PNG"
    quality: int = 95
    side: int | None = None

    def __post_init__(self) -> None:
        if self.format not in ("PNG", "JPEG"):
            raise ValueError(f"Pictures are sent as PNG or JPEG, not {self.format!r}.")

    def encode(self, image: Image) -> bytes:
        image = image.convert("RGB")
        if self.side and max(image.size) > self.side:
            image.thumbnail((self.side, self.side))
        file = io.BytesIO()
        image.save(file, self.format, **({"quality": self.quality} if self.format == "JPEG" else {}))
        return file.getvalue()


class ServedVLM:
    """A `VLM` (see vlms/__init__.py) over HTTP. Safe to use from several threads."""

    interleaves = True

    def __init__(
        self,
        model: str,
        url: str = "http://localhost:8000/v1",
        *,
        key: str | None = None,
        cache: str | Path | None = None,
        budget: Budget = Budget(),
        patience: Patience = Patience(),
        pictures: Pictures = Pictures(),
        workers: int = 8,
        extra: Mapping[str, Any] | None = None,
        limit_field: str = "max_tokens",
    ) -> None:
        """url: up to and with /v1. key: sent as a bearer token; from the variable OPENAI_API_KEY if not given. workers:
        requests at a time in `write_batch`. extra: further fields of each request, such as
        {"chat_template_kwargs": {"enable_thinking": False}} for servers that know them. limit_field: what the server
        calls the longest answer; some hosted models want max_completion_tokens."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The server's address {url!r} must start with http:// or https://.")
        if workers < 1:
            raise ValueError(f"workers={workers}: must be at least 1.")
        self.model, self.url, self.workers = model, url.rstrip("/"), workers
        self.budget, self.patience, self.pictures = budget, patience, pictures
        self.cache = AnswerCache(cache) if cache is not None else None
        self.extra, self.limit_field, self.usage = dict(extra or {}), limit_field, Usage()
        self._key = key if key is not None else os.environ.get("OPENAI_API_KEY")
        self._guard = threading.Lock()

    @property
    def name(self) -> str:
        return self.model

    def check(self) -> None:
        """Unusable where nothing answers at the address, so that this is known before much is done for it. Without any
        budget nothing is asked, and the cache may have it all."""
        if self.budget.requests == 0:
            return
        place = urllib.parse.urlsplit(self.url)
        port = place.port or (443 if place.scheme == "https" else 80)
        try:
            socket.create_connection((place.hostname or "", port), self.patience.timeout).close()
        except OSError as error:
            raise Unusable(f"There is no server for {self.model} at {self.url} ({error}): start it first") from error

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The answer, in one piece. NoAnswer where there is none to be had, BudgetSpent where the budget is."""
        reply = self._ask(messages, {self.limit_field: max_new_tokens, "temperature": temperature, "seed": seed})
        if on_text:
            on_text(reply.text)
        return reply.text

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        seeds = seeds_of(conversations, seeds)
        with ThreadPoolExecutor(self.workers) as pool:
            asked = [
                pool.submit(self.write, messages, max_new_tokens, temperature, seed)
                for messages, seed in zip(conversations, seeds, strict=True)
            ]
            try:
                return [future.result() for future in asked]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)  # those under way reach the cache
                raise

    def first_tokens(self, messages: Messages) -> dict[str, float]:
        """The likeliest first tokens of the answer, at most 20, with their probabilities."""
        asked = {self.limit_field: 1, "temperature": 0.0, "seed": 0, "logprobs": True, "top_logprobs": ALTERNATIVES}
        reply = self._ask(messages, asked)
        if not reply.logprobs:
            raise ValueError(f"{self.url} names no probabilities of tokens: use a server that does, such as vLLM.")
        return {token: math.exp(value) for token, value in reply.logprobs.items()}

    def yes_probability(self, messages: Messages) -> float:
        both = {"yes": 0.0, "no": 0.0}
        for token, probability in self.first_tokens(messages).items():
            word = token.strip().lower()
            if word in both:
                both[word] += probability
        if not sum(both.values()):
            raise ValueError(
                f"{self.model} answers neither yes nor no: end the question with a request for one of them."
            )
        return both["yes"] / sum(both.values())

    def features(self, messages: Messages) -> Tensor:
        raise ValueError("A served model does not show its hidden states: load it here instead.")

    # ------------------------------------------------------------------------------------------- asking

    def _ask(self, messages: Messages, sampling: Mapping[str, Any]) -> Reply:
        """From the cache, or else from the server and into the cache."""
        common = {"model": self.model, **sampling, **self.extra}
        if self.cache is None:
            return self._try(self._body(messages, common))
        # pixels and how they are sent, not the bytes of a file, which differ from one version of Pillow to the next
        asked = [[message.role, message.text, [picture_hash(one) for one in message.images]] for message in messages]
        question = {**common, "messages": asked, "pictures": vars(self.pictures)}
        key = key_of(question)
        with self.cache.asking(key):
            found = self.cache.get(key)
            if found is None:
                found = self._try(self._body(messages, common))
                self.cache.put(key, question, found)
            else:
                with self._guard:
                    self.usage.cached += 1
            return found

    def _body(self, messages: Messages, common: Mapping[str, Any]) -> bytes:
        kind = f"image/{self.pictures.format.lower()}"
        parts = [_message(one, [self.pictures.encode(image) for image in one.images], kind) for one in messages]
        return json.dumps({**common, "messages": parts}).encode()

    def _try(self, body: bytes) -> Reply:
        """One question, sent until it is answered."""
        trouble, gone = "", False
        for attempt in range(self.patience.tries):
            self._spend()
            try:
                return self._count(_reply(self._send(body)))
            except _Refused as refused:
                self._failed()
                trouble, asked_for, gone = str(refused), refused.wait, refused.gone
                if not refused.again:
                    break
            except (OSError, http.client.HTTPException) as error:
                self._failed()
                reason = getattr(error, "reason", None) or error
                trouble, asked_for = str(reason) or type(error).__name__, None
                gone = isinstance(reason, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError)
            if attempt + 1 < self.patience.tries:
                self._wait(attempt, asked_for)
        said = f"{self.model} at {self.url} gives no answer ({trouble}): check the server, the model's name and the key"
        raise Unusable(said) if gone else NoAnswer(said)

    def _wait(self, attempt: int, asked_for: float | None) -> None:
        # at random between half and all of it, so that many clients do not come back at the same moment
        pause = self.patience.pause * 2**attempt * random.uniform(0.5, 1.0)
        time.sleep(min(max(pause, asked_for or 0.0), self.patience.longest))

    def _spend(self) -> None:
        """Take one request from the budget."""
        with self._guard:
            usage, budget = self.usage, self.budget
            if budget.requests is not None and usage.requests >= budget.requests:
                raise BudgetSpent(f"The budget of {budget.requests} requests is spent: raise it to go on")
            if budget.tokens is not None and usage.question_tokens + usage.answer_tokens >= budget.tokens:
                raise BudgetSpent(f"The budget of {budget.tokens} tokens is spent: raise it to go on")
            usage.requests += 1

    def _failed(self) -> None:
        with self._guard:
            self.usage.failures += 1

    def _count(self, reply: Reply) -> Reply:
        with self._guard:
            self.usage.answers += 1
            self.usage.question_tokens += reply.tokens[0]
            self.usage.answer_tokens += reply.tokens[1]
        return reply

    def _send(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
        end = time.monotonic() + self.patience.timeout
        try:
            with urllib.request.urlopen(request, timeout=self.patience.timeout) as response:
                data = bytearray()
                while piece := response.read1(1 << 16):
                    data += piece
                    # a server that drips never lets a read time out, so the whole is timed as well
                    if time.monotonic() > end:
                        raise TimeoutError(f"not finished after {self.patience.timeout:g} s")
                    if len(data) > LARGEST:
                        raise _Refused("an endless answer", again=True)
                if response.length:
                    raise http.client.IncompleteRead(bytes(data), response.length)
                return bytes(data)
        except urllib.error.HTTPError as error:
            wait = error.headers.get("Retry-After", "")
            said = error.read(500).decode("utf-8", "replace").strip()
            seconds = float(wait) if wait.isdecimal() else None
            raise _Refused(f"status {error.code}: {said}", error.code in AGAIN, seconds, error.code in NEVER) from error


class _Refused(Exception):
    """What the server sent is no answer. again: whether another try may help; wait: the seconds that it asks for; gone:
    whether every other question would be refused, too."""

    def __init__(self, what: str, again: bool, wait: float | None = None, gone: bool = False) -> None:
        super().__init__(what)
        self.again, self.wait, self.gone = again, wait, gone


def _message(message: Message, pictures: Sequence[bytes], kind: str) -> dict[str, Any]:
    """A message as servers take it: text, or parts of text and pictures in order."""
    if not pictures:
        return {"role": message.role, "content": message.text}
    shown = [
        {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}
        for data in pictures
    ]
    if IMAGE not in message.text:
        return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}
    texts = message.text.split(IMAGE)
    parts: list[dict[str, Any]] = []
    for place, text in enumerate(texts):
        parts += [{"type": "text", "text": text}] if text.strip() else []
        parts += shown[place : place + 1]
    return {"role": message.role, "content": parts}


def _reply(data: bytes) -> Reply:
    """What a server's answer says; _Refused where it is not the answer of such a server."""
    try:
        found = json.loads(data)
        choice = found["choices"][0]
        text = choice["message"]["content"]
        if not isinstance(text, str):
            raise TypeError("no text")
        usage = found.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        first = ((choice.get("logprobs") or {}).get("content") or [{}])[0]
        logprobs = {one["token"]: float(one["logprob"]) for one in first.get("top_logprobs") or ()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Refused(f"no answer of a chat server: {data[:80]!r}", again=True) from error
    return Reply(text, choice.get("finish_reason"), found.get("model"), tokens, logprobs)
