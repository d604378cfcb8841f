"""The log of a public server: a line of JSON per run and per refusal, on the error stream or in the file `DRAFTSCOPE_LOG`.

No line says what a visitor wrote, unless `DRAFTSCOPE_LOG_PROMPTS=1`. On a server of one's own nothing is logged.
"""

import json
import os
import sys
import time
from threading import Lock
from typing import Any

from decoding.limits import limits

WRITTEN = ("prompt", "said")  # what may hold a visitor's words
LONGEST = 4_000  # characters of a value
_lock = Lock()


def log(event: str, **facts: Any) -> None:
    """Write a line; a log that cannot be written stops nobody's run."""
    if not limits().public:
        return
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


def with_prompts() -> bool:
    return os.environ.get("DRAFTSCOPE_LOG_PROMPTS") == "1"


def short(value: Any) -> Any:
    return value[:LONGEST] if isinstance(value, str) else value
