"""What only this server knows, and keeps."""

import os
import secrets
from contextlib import suppress
from functools import cache

from decoding.runs.store import default_folder


@cache
def own_secret() -> bytes:
    """What only this server knows, so that nobody has keys for its codes made beforehand. It lies beside the kept runs,
    and links of teachers lead as long as it is there; where nothing can be written it is another one after each start."""
    file, made = default_folder() / "classes.secret", secrets.token_bytes(32)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(made)
        if len(found := file.read_bytes()) == len(made):
            return found
    return made
