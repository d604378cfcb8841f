"""A GGUF file converted in a process of its own: its facts, its tokenizer and its blocks are read by libraries that trust them.

    python -m decoding.models.converting FILE FOLDER

A damaged file, or one that somebody made for the purpose, may take all memory or never end; what it makes is a folder like any
other model's, which is looked at and tried before it is opened.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from decoding.models import apart
from decoding.models.apart import Ended, conversion, fail, limited, say
from decoding.models.progress import Progress


def convert_apart(file: Path, folder: Path) -> Iterator[Progress]:
    """Write what a GGUF file holds into `folder`, which is made.

    Yields:
        bytes of the file that were read; whoever drops the generator ends the process.

    Raises:
        ValueError: it is no GGUF file, is cut short, holds what cannot be opened, or takes more time or memory than it may.
    """
    yield Progress(f"reading {file.name} in a process of its own")
    bounds = conversion(file.stat().st_size)
    steps = apart.run(__name__, [str(file), str(folder)], bounds)
    try:
        while True:
            if (step := next(steps)) is not None:
                yield step
    except StopIteration as end:
        if problem := outcome(end.value, file, bounds):
            raise ValueError(problem) from None
    finally:
        steps.close()


def outcome(end: Ended, file: Path, bounds: apart.Bounds) -> str:
    """What the end of the process means; "" if all went well."""
    if end.code == 0:
        return ""
    if end.code == 1:
        return end.last_line
    if end.code is None:
        return f"{str(file)!r} could not be converted: nothing was heard of it for {bounds.patience:g} seconds; it was ended."
    if end.spent:
        return f"{str(file)!r} takes more than {bounds.seconds:,} seconds of a processor, or all memory; its conversion was ended."
    return (
        f"{str(file)!r} ends the process that converts it (signal {-end.code}), out of memory as a rule; at most "
        f"{bounds.memory / 2**30:.0f} GB are given."
    )


# -- in the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Convert a file; the last line says what is wrong with it."""
    file, folder = map(Path, sys.argv[1:])
    try:
        bounds = conversion(file.stat().st_size)
        limited(bounds)
        from decoding.models.gguf_files import convert  # not at the top: it takes torch and transformers, which are not needed here

        for step in convert(file, folder):
            say(step)
    except MemoryError:
        fail(f"{str(file)!r} takes more than {conversion(file.stat().st_size).memory / 2**30:.0f} GB of memory to convert.")
    except ValueError as error:
        fail(str(error))
    except BaseException as error:
        fail(f"{str(file)!r} cannot be converted: {type(error).__name__}: {error}")
    apart.done()


if __name__ == "__main__":
    main()
