"""Settings that hold for every test, and a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No time limit a case: on a busy machine it measures the neighbours, and a property that holds would fail.
settings.register_profile("fusion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fusion")


@dataclass(kw_only=True)
class Reply:
    """What the server sends: by default an answer of the words it was asked, each a token."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None  # sent as it is
    usage: dict[str, int] | None = None


@dataclass(kw_only=True)
class OpenAIServer:
    """A server on this machine; `reply` decides what it answers to the body of a request.

    Attributes:
        url: Where its interface begins.
        requests: Bodies of the requests, in order of arrival.
        keys: The `Authorization` headers of the requests.
        most_at_once: Most requests that were ever under way.
    """

    url: str
    reply: Callable[[dict[str, Any]], Reply | None] = lambda _: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _n_now: int = 0

    def answer(self, body: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            self.requests.append(body)
            self.keys.append(key)
            self._n_now += 1
            self.most_at_once = max(self.most_at_once, self._n_now)
        try:
            return self.reply(body) or Reply()
        finally:
            with self.lock:
                self._n_now -= 1

    def questions(self) -> list[str]:
        """Return the last message of every request."""
        return [request["messages"][-1]["content"] for request in self.requests]


def _document(reply: Reply, body: dict[str, Any]) -> str:
    question = body["messages"][-1]["content"]
    text = f"You asked: {question}" if reply.text is None else reply.text
    n_asked = sum(len(message["content"].split()) for message in body["messages"])
    usage = reply.usage or {"prompt_tokens": n_asked, "completion_tokens": len(text.split())}
    usage |= {"total_tokens": sum(usage.values())}
    head = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return json.dumps(head | {"object": "chat.completion", "choices": [choice], "usage": usage})
    head |= {"object": "chat.completion.chunk"}
    words = text.split(" ")
    deltas = [word if not i else f" {word}" for i, word in enumerate(words)]
    chunks = [
        head | {"choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append(head | {"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply = server.answer(body, self.headers.get("authorization"))
            if reply.body is not None:
                content = reply.body
            elif reply.status >= 400:
                content = json.dumps({"error": {"message": reply.text or "no", "code": None}})
            else:
                content = _document(reply, body)
            kind = "text/event-stream" if body.get("stream") and reply.status == 200 else "application/json"
            try:
                self.send_response(reply.status)
                for name, value in {"content-type": kind, **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content.encode())))
                self.end_headers()
                self.wfile.write(content.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has left

        def log_message(self, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = OpenAIServer(url=f"http://127.0.0.1:{listening.server_port}/v1")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    listening.shutdown()
    thread.join()
    listening.server_close()
