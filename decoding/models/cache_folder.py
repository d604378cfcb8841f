"""The user's cache folder: heads that were trained here, datastores that were built, models that were fetched."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """`$DRAFTSCOPE_CACHE`, or `draftscope` in the cache folder that this system has for the user."""
    if chosen := os.environ.get("DRAFTSCOPE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "draftscope"
