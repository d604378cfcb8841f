"""What only this server knows, and keeps."""

import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

from decoding.runs.store import default_folder

LENGTH = 32  # bytes


@cache
def own_secret() -> bytes:
    """What only this server knows, so that nobody has keys for its codes made beforehand. It lies beside the kept runs,
    and links of teachers lead as long as it is there; where nothing can be written it is another one after each start."""
    file, made = default_folder() / "classes.secret", secrets.token_bytes(LENGTH)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        return found if len(found := in_file(file)) == LENGTH else written(file, made)
    return made


def in_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def written(file: Path, made: bytes) -> bytes:
    """What lies in the file after this: all of what was made, or what another process wrote at the same time; never a part of it,
    as a disk that was full had left there for good."""
    whole = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(made)
        try:
            if file.exists():  # damaged
                file.unlink()
            os.link(whole, file)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            whole.replace(file)
        return file.read_bytes()
    finally:
        whole.unlink(missing_ok=True)
