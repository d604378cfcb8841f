"""A process of its own for what comes from outside and is a program, or is read like one: a tokenizer, a chat template, a GGUF
file. It has limits on time and memory, and does not outlive whoever started it; what happens to it happens to nobody else.

A module that is run so begins with `limited`, tells how far it is with `say`, answers on its output and ends with `fail` if it
cannot. No torch here, nor anything else that takes time to import: most of what is run so takes less.
"""

import json
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryFile
from time import monotonic
from typing import IO, NoReturn

from decoding.models.progress import Progress, tell

SAID_MOST = 4096  # bytes of what it says
LONGEST = 600  # characters of a sentence that it ends with
LOOK = 0.05  # seconds between two looks
HURRY = 0.002  # and before the first
NEWS = "\x1e"  # a line that begins so says how far it is
PARENT = os.getppid()


@dataclass(frozen=True)
class Bounds:
    """What a process may take."""

    seconds: int  # of a processor
    memory: int  # bytes
    patience: float  # seconds without a word from it: the processor may be somebody else's
    addresses: bool = True  # what is counted: addresses, of which torch takes more than it uses, or else what it writes to
    answer: int = 2**20  # bytes of its answer that are read


TRIAL = Bounds(seconds=30, memory=4 * 2**30, patience=120)  # of a tokenizer, and of a template for a few chats
RENDERING = Bounds(seconds=5, memory=2**30, patience=60, answer=16 * 2**20)  # of a template, for one chat
SLOWEST = 5 * 2**20  # bytes of a file that are converted in a second of a processor


def conversion(size: int) -> Bounds:
    """Of a GGUF file of so many bytes. Its tensors are read one by one; in memory a block of 4 bits becomes 32 for a moment."""
    return Bounds(seconds=120 + size // SLOWEST, memory=8 * 2**30 + 8 * size, patience=300, addresses=False)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None  # of its exit, negative for a signal; None: it was ended, as nothing was heard of it
    said: str  # its last words
    answer: str = ""  # what it put out

    @property
    def last_line(self) -> str:
        line = next((line for line in reversed(self.said.splitlines()) if line.strip()), "it says nothing")
        return "".join(c if c.isprintable() else " " for c in line)[:LONGEST]

    @property
    def late(self) -> bool:
        """Whether it was ended for its time."""
        return self.code in (None, -getattr(signal, "SIGXCPU", 0))

    @property
    def spent(self) -> bool:
        """Whether it was ended for its time, or by the system for all memory."""
        return self.code in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0))


def run(module: str, arguments: Sequence[str], bounds: Bounds, given: bytes = b"") -> Generator[Progress | None, None, Ended]:
    """Run `python -m module`; whoever drops the generator ends the process.

    Args:
        given: what it can read from its input.

    Yields:
        how far it is, if it said so since the last look; else None.
    """
    place = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RUST_BACKTRACE": "0"}
    place["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with TemporaryFile("a+b") as into, TemporaryFile("a+b") as out, TemporaryFile("a+b") as err:
        into.write(given)
        into.seek(0)
        with ended(Popen([sys.executable, "-m", module, *arguments], stdin=into, stdout=out, stderr=err, env=place)) as process:
            heard, pause, read = monotonic(), HURRY, 0
            while process.poll() is None:
                news, read = news_of(err, read)
                heard = heard if news is None else monotonic()
                yield news
                if monotonic() - heard > bounds.patience:
                    return Ended(None, "")
                with suppress(TimeoutExpired):
                    process.wait(pause)
                pause = min(2 * pause, LOOK)
            return Ended(process.returncode, tail(err, SAID_MOST), tail(out, bounds.answer))


def end_of(steps: Generator[Progress | None, None, Ended], stage: str) -> Ended:
    """Wait for the end of a process; `stage` is told at every look, and who listens may end it."""
    try:
        while True:
            next(steps)
            tell(stage)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


@contextmanager
def ended(process: Popen[bytes]) -> Iterator[Popen[bytes]]:
    """A process that does not outlive the block."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def news_of(file: IO[bytes], read: int) -> tuple[Progress | None, int]:
    """What was said last of how far it is, since so many bytes; and how many bytes there are now. The process writes at the end of
    the file wherever this one reads it."""
    size = file.seek(0, os.SEEK_END)
    if size == read:
        return None, read
    file.seek(max(read, size - SAID_MOST))
    lines = file.read().decode("utf-8", "replace").split("\n")
    for line in reversed(lines[:-1]):  # the last one may still be written
        if line.startswith(NEWS):
            with suppress(ValueError, TypeError, KeyError):
                stage, done, total = json.loads(line[1:])
                return Progress(str(stage), int(done), int(total)), size
    return None, size - len(lines[-1].encode())


def tail(file: IO[bytes], most: int) -> str:
    """The end of what was written."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read().decode("utf-8", "replace")


# -- in the process ----------------------------------------------------------------------------------------------------


def limited(bounds: Bounds) -> None:
    """As much time and memory as there should be, where the system knows such limits; and where memory ends all the same, this
    process is the first to go."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        import resource
    except ImportError:
        return
    kind = resource.RLIMIT_AS if bounds.addresses else resource.RLIMIT_DATA
    for what, most in ((resource.RLIMIT_CPU, bounds.seconds), (kind, bounds.memory), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def say(progress: Progress) -> None:
    """How far it is; ends the process if whoever started it is gone."""
    if os.getppid() != PARENT:
        os._exit(1)
    line = json.dumps([progress.stage, progress.done, progress.total])
    os.write(2, f"{NEWS}{line}\n".encode())


def fail(problem: str) -> NoReturn:
    """End with a sentence."""
    sys.stdout.flush()
    os.write(2, f"\n{' '.join(problem.split())[:LONGEST]}\n".encode())
    os._exit(1)  # whatever state the libraries are in


def done() -> NoReturn:
    """End well, and at once: libraries that were imported may take their time."""
    sys.stdout.flush()
    os._exit(0)
