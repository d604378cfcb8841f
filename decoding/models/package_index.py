"""The Python package index: where a file of a package lies, by the simple API that every index and mirror speaks (PEP 503, 691).

The index is the one that pip or uv is told to use on this machine, else the public one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin

from decoding.models.downloads import BROKEN, answered, opened, shown

PUBLIC = "https://pypi.org/simple"
VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
JSON = "application/vnd.pypi.simple.v1+json"
MOST = 32 * 2**20  # bytes of an index page
WAIT = 10  # seconds for an answer


def indexes() -> Iterator[str]:
    """What this machine is told to use, the first to be asked first; pip is asked only if the others have failed."""
    seen = {""}
    for chosen in told():
        if (index := chosen.strip().rstrip("/")) not in seen:
            seen.add(index)
            yield index


def told() -> Iterator[str]:
    for name in VARIABLES:
        yield os.environ.get(name, "")
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    with suppress(OSError, subprocess.SubprocessError):  # a machine without pip has no settings of it
        yield subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    yield PUBLIC


def address(package: str, file: str) -> str:
    """Where this file of the package can be downloaded; ValueError if no index can say."""
    problems = []
    for index in indexes():
        page = f"{index}/{package}/"
        try:
            kind, text, base = answered(partial(asked, page), 2 * WAIT)
            if found := listed(kind, text.decode("utf-8", "replace"), base).get(file):
                return found
            problems.append(f"{shown(page)} does not list it")
        except (*BROKEN, ValueError, KeyError, TypeError) as error:
            problems.append(f"{shown(page)}: {getattr(error, 'reason', None) or error}")
    raise ValueError(f"No package index leads to {file}: {'; '.join(problems)}.")


def asked(page: str) -> tuple[str, bytes, str]:
    """The kind of a page, what it says, and where it was in the end."""
    with opened(page, {"Accept": f"{JSON}, text/html;q=0.5"}, WAIT) as answer:
        return answer.headers.get_content_type(), answer.read(MOST), answer.url


def listed(kind: str, text: str, page: str) -> dict[str, str]:
    """File -> address, of a page of an index.

    >>> listed("text/html", '<a href="../files/a-1.whl#sha256=00">a-1.whl</a>', "https://index/simple/a/")
    {'a-1.whl': 'https://index/simple/files/a-1.whl'}
    """
    if kind.endswith("json"):
        return {file["filename"]: urljoin(page, file["url"]) for file in json.loads(text)["files"]}
    links = Links()
    links.feed(text)
    return {name.strip(): urldefrag(urljoin(page, link)).url for link, name in links.found}


class Links(HTMLParser):
    """The links of a page with their words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._link = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        if self._link:
            self.found.append((self._link, data))

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None
