"""A controller in miniature: serves the page's files as a real one does, with its rules for what a page may load, and a state
that the checks set. It takes one token."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "clerk/survey/page"
CSP = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
TOKEN = "a-token"


def saved_page(document):
    """What `clerk page` prints: one file, with everything inside."""
    text = (PAGE / "page.html").read_text()
    text = re.sub(
        r'<link rel="stylesheet" href="([a-z]+\.css)">',
        lambda it: f"<style>{(PAGE / it[1]).read_text()}</style>",
        text,
    )
    text = re.sub(
        r'<script src="([a-z]+\.js)" defer></script>',
        lambda it: f"<script>{(PAGE / it[1]).read_text()}</script>",
        text,
    )
    inside = json.dumps(document).replace("<", "\\u003c")
    place = '<script type="application/json" id="document"></script>'
    assert text.count(place) == 1
    return text.replace(place, place.replace("></", f">{inside}</"))


class Controller:
    """Its `state`, `history` and `slow` are what the page is told. `mode`: "stream", "poll" (it has no stream left), or "silent"."""

    def __init__(self, state, history, slow):
        self.state, self.history, self.slow = state, history, slow
        self.mode, self.pause, self.cut = "stream", 0.2, 1e9
        self.past = {"past": None}
        self.acts = []
        self.act = lambda body: None
        self.plan = {}
        handler = type("Handler", (Handler,), {"controller": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    controller = None

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": len(body),
            "Content-Security-Policy": CSP,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        it = self.controller
        while it.mode == "silent":
            time.sleep(0.1)
        if self.path == "/v1/state":
            return self.answer(200, it.state | it.history)
        if self.path == "/v1/slow":
            return self.answer(200, it.slow)
        if self.path == "/v1/events":
            return self.events() if it.mode == "stream" else self.answer(503, {"error": {"code": "busy"}})
        name = self.path.strip("/") or "page.html"
        file = PAGE / name
        if re.fullmatch(r"[a-z]+\.(html|js|css)", name) and file.exists():
            return self.answer(200, file.read_bytes(), KINDS[file.suffix])
        return self.answer(404, {"error": {"code": "not_found"}})

    def events(self):
        it = self.controller
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        told, end = {}, time.monotonic() + it.cut
        try:
            self.wfile.write(b"retry: 200\n\n")
            while it.mode != "poll" and time.monotonic() < end:
                if it.mode == "stream":
                    for kind in ("past", "history", "slow"):
                        if told.get(kind) is not getattr(it, kind):
                            told[kind] = getattr(it, kind)
                            self.tell(kind, told[kind])
                    it.state = it.state | {"at": it.state["at"] + 1000}
                    self.tell("state", it.state)
                time.sleep(it.pause)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def tell(self, kind, document):
        self.wfile.write(f"event: {kind}\ndata: {json.dumps(document)}\n\n".encode())
        self.wfile.flush()

    def do_POST(self):
        it = self.controller
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/plan":
            return self.answer(
                200, it.plan | {"dry_run": True, "bytes": 5400, "estimated_seconds": 0.1, "unknown": []}
            )
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(
                401,
                {"error": {"code": "token", "message": "The token is wrong.", "next": "It is in a file."}},
            )
        it.acts.append(body)
        it.act(body)
        return self.answer(200, it.plan)
