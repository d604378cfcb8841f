"""Train what a method needs: `python -m decoding.training METHOD --family TARGET ...`; `--help` behind the method lists its
options."""

import sys
from collections.abc import Sequence

from decoding.training import train
from decoding.training.recipes import PROGRAMS, RECIPES


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    method = given[0] if given else ""
    if method in PROGRAMS:
        PROGRAMS[method](given[1:])
    elif method in RECIPES:
        train.main(given)
    else:
        sys.exit(f"There is no training for {method!r}; there is one for {', '.join(sorted([*PROGRAMS, *RECIPES]))}.")


if __name__ == "__main__":
    main()
