"""What only this server knows, and keeps."""

import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from decoding.runs.store import default_folder

LENGTH = 32  # bytes
_lock = Lock()


@cache
def own_secret() -> bytes:
    """What only this server knows, so that nobody has keys for its codes made beforehand. It lies beside the kept runs,
    and links of teachers lead as long as it is there; where nothing can be written it is another one after each start."""
    file, made = default_folder() / "classes.secret", secrets.token_bytes(LENGTH)
    with _lock, suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        found = in_file(file)
        if len(found) != LENGTH:
            found = written(file, made, damaged=bool(found) or file.exists())
        return found if len(found) == LENGTH else made
    return made


def linked(whole: Path, file: Path) -> None:
    """Give the file its name, if no other has it."""
    try:
        os.link(whole, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        whole.replace(file)


def in_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def written(file: Path, made: bytes, damaged: bool) -> bytes:
    """What lies in the file after this: all of what was made, or what another process wrote at the same time; never a part of it,
    as a disk that was full had left there for good.

    Args:
        damaged: there is a file, and what it holds is no secret.
    """
    whole = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(made)
        if damaged:
            whole.replace(file)
        else:
            linked(whole, file)
        return file.read_bytes()
    finally:
        whole.unlink(missing_ok=True)
