"""A file server for tests of downloads: it knows ranges, writes down what it is asked, and breaks off if told."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep
from urllib.parse import unquote, urlsplit

DROP, PAUSE = 512, 0.2  # bytes, and seconds between them


class Server(ThreadingHTTPServer):
    """Serves what lies in `folder`; a folder is its `index.html`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[str] = []
        self.ranges: list[str] = []  # that were asked for
        self.knows_ranges = True
        self.dribbles = 0.0  # seconds between two bytes of an answer; 0: it comes at once
        self.breaks_after = 0  # bytes of one answer, then the connection ends; 0: never
        self.slow = False  # the second half of a file comes in drops

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a path."""
        file = self.folder / path.strip("/")
        file = file / "index.html" if file.is_dir() else file
        return (200, file.read_bytes(), {}) if file.is_file() else (404, b"", {})


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(path)
        status, body, headers = self.server.answer(path)
        wanted = self.headers.get("Range", "")
        if wanted:
            self.server.ranges.append(wanted)
        if wanted and status == 200 and self.server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status, body = 206, body[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if path.endswith(("/", ".html")) and "Content-Type" not in headers:
            self.send_header("Content-Type", "text/html")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and self.server.dribbles and "/api/" not in path:
            self.dribble(body)
        elif self.command == "GET":
            self.send(body[: self.server.breaks_after or None])
        if self.server.breaks_after:
            self.close_connection = True

    def send(self, body: bytes) -> None:
        half = len(body) // 2 if self.server.slow else len(body)
        self.wfile.write(body[:half])
        for start in range(half, len(body), DROP):
            if self.server.slow:
                sleep(PAUSE)
            self.wfile.write(body[start : start + DROP])

    def dribble(self, body: bytes) -> None:
        """One byte at a time, as long as somebody listens."""
        with suppress(OSError):
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                sleep(self.server.dribbles)

    def handle(self) -> None:
        with suppress(ConnectionError):  # whoever asked wants no more
            super().handle()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test looks at `requests`."""


class Hub(Server):
    """Speaks the two routes of the Hub that a download needs; `folder` holds the models as owner/name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.revision = "a" * 40
        self.gated: set[str] = set()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        name, _, file = path.removeprefix("/api/models/").strip("/").partition(f"/resolve/{self.revision}/")
        if not (self.folder / name).is_dir():
            return 404, b"", {}
        if path.startswith("/api/models/"):
            about = {"id": name, "sha": self.revision, "siblings": self.siblings(self.folder / name)}
            return 200, json.dumps(about).encode(), {"Content-Type": "application/json"}
        return (403, b"", {}) if name in self.gated else super().answer(f"{name}/{file}")

    def siblings(self, folder: Path) -> list[dict]:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        return [{"rfilename": str(file.relative_to(folder)), "size": file.stat().st_size, **large(file)} for file in files]


def large(file: Path) -> dict:
    """What the Hub knows of files of weights beside their size."""
    if file.suffix != ".safetensors":
        return {}
    return {"lfs": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}}


@contextmanager
def serving(folder: Path, kind: type[Server] = Server) -> Iterator[Server]:
    """The server, while the block runs."""
    server = kind(folder)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
