"""The log of a public server: a line of JSON per run and per refusal, on the error stream or in the file `DRAFTSCOPE_LOG`.

Whoever is refused a thousand times a second does not fill the disk: of that, so many lines a minute are written, and a later one
says how many were left out. No line says what a visitor wrote, unless `DRAFTSCOPE_LOG_PROMPTS=1`. On a server of one's own nothing
is logged.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from decoding.limits import limits

WRITTEN = ("prompt", "said")  # what may hold a visitor's words
LONGEST = 4_000  # characters of a value
BROUGHT_ABOUT = ("refused", "failed")  # by whoever likes, as often as they like
A_MINUTE = 300  # lines of these


@dataclass
class Minute:
    """One of the clock that counts from the machine's start."""

    number: int = 0
    lines: int = 0  # of those, with what was left out


_lock = Lock()
_minute = Minute()


def log(event: str, **facts: Any) -> None:
    """Write a line; a log that cannot be written stops nobody's run."""
    if not limits().public:
        return
    if event in BROUGHT_ABOUT:
        if (left_out := left_out_before()) is None:
            return
        facts |= {"left_out": left_out} if left_out else {}
    kept = {name: value for name, value in facts.items() if with_prompts() or name not in WRITTEN}
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event} | {k: short(v) for k, v in kept.items()}
    text = json.dumps(line, ensure_ascii=True, default=str)
    try:
        with _lock:
            if file := os.environ.get("DRAFTSCOPE_LOG"):
                with open(file, "a", encoding="utf-8") as out:
                    out.write(text + "\n")
            else:
                print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def left_out_before() -> int | None:
    """How many lines of the minute before were left out, once; None: this one is left out."""
    now, left_out = int(time.monotonic() // 60), 0
    with _lock:
        if now != _minute.number:
            left_out = max(0, _minute.lines - A_MINUTE)
            _minute.number, _minute.lines = now, 0
        _minute.lines += 1
        return left_out if _minute.lines <= A_MINUTE else None


def with_prompts() -> bool:
    return os.environ.get("DRAFTSCOPE_LOG_PROMPTS") == "1"


def short(value: Any) -> Any:
    return value[:LONGEST] if isinstance(value, str) else value
