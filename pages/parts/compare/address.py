"""A link that reopens a comparison: the view, the columns, what they share; every value is checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from pages.parts.compare.race import LEAST, MOST
from pages.parts.shared import address
from pages.parts.shared.settings import Settings

VIEWS = ("columns", "sweep", "saved")
MODES = ("lock-step", "race", "end")
SWEPT = ("from", "to", "points", "seeds")
COLUMN = re.compile(r"c([1-9])(?:\.(.+))?")


@dataclass(frozen=True)
class ComparePlace:
    """What a link asks for; what it does not say is None or empty."""

    settings: Settings  # prompt, sampling, seed and limit; of a sweep the method and its parameters too
    view: str = "columns"
    mode: str = "lock-step"
    columns: tuple[Settings, ...] = ()
    parameter: str = ""  # swept
    swept: Mapping[str, float] = field(default_factory=dict)  # "from", "to", "points", "seeds", as far as they are said
    complaints: tuple[str, ...] = ()


def column_parameters(columns: Sequence[Settings], mode: str) -> dict[str, str]:
    """The link's parameters; ValueError if the prompt is too long for one."""
    found = shared(columns[0]) | {"view": "columns", "mode": mode}
    for number, settings in enumerate(columns, 1):
        found[f"c{number}"] = settings.method
        found |= {f"c{number}.{name}": str(value) for name, value in settings.full_params.items()}
    return found


def sweep_parameters(settings: Settings, parameter: str, values: Sequence[float], seeds: int) -> dict[str, str]:
    own = {key: value for key, value in address.parameters(settings, 0, None).items() if key != "step"}
    swept = zip(SWEPT, (min(values), max(values), max(2, len(values)), seeds), strict=True)
    return own | {"view": "sweep", "sweep": parameter} | {name: f"{value}" for name, value in swept}


def shared(settings: Settings) -> dict[str, str]:
    """What is not a column's own."""
    everything = address.parameters(settings, 0, None)
    return {key: value for key, value in everything.items() if key not in ("step", "method") and not key.startswith("p.")}


def parse(query: Mapping[str, str]) -> ComparePlace | None:
    """What the address asks for; None if it says nothing."""
    query = {key: value for key, value in query.items() if key not in address.STREAMLITS}
    if not query:
        return None
    own = {key: value for key, value in query.items() if key in ("view", "mode", "sweep", *SWEPT) or COLUMN.fullmatch(key)}
    rest = {key: value for key, value in query.items() if key not in own}
    place = address.parse(rest or {"v": address.VERSION})
    complaints = list(place.complaints)
    return ComparePlace(
        place.settings,
        one_of(own, "view", VIEWS, complaints),
        one_of(own, "mode", MODES, complaints),
        columns_of(own, place.settings, complaints),
        own.get("sweep", ""),  # held against the parameters of the method by the page, and so is the next
        swept_of(own, complaints),
        tuple(complaints),
    )


def one_of(query: Mapping[str, str], name: str, allowed: Sequence[str], complaints: list[str]) -> str:
    value = query.get(name, allowed[0])
    if value in allowed:
        return value
    complaints.append(f"There is no {name} {address.shown(value)}; there are {', '.join(allowed)}.")
    return allowed[0]


def swept_of(query: Mapping[str, str], complaints: list[str]) -> dict[str, float]:
    """The numbers of a sweep."""
    found = {}
    for name in SWEPT:
        try:
            found |= {name: float(query[name])} if name in query else {}
        except ValueError:
            found[name] = float("nan")
        if not isfinite(found.get(name, 0)):
            complaints.append(f"A sweep's “{name}” has to be a number; it is {address.shown(query[name])}.")
            del found[name]
    return found


def columns_of(query: Mapping[str, str], base: Settings, complaints: list[str]) -> tuple[Settings, ...]:
    """Each column by itself; a bad one does not take the good ones with it."""
    wanted: dict[int, dict[str, str]] = {}
    for key, value in query.items():
        if match := COLUMN.fullmatch(key):
            wanted.setdefault(int(match[1]), {})[f"p.{match[2]}" if match[2] else "method"] = value
    found = []
    for number, part in sorted(wanted.items()):
        said = len(complaints)
        settings = address.method_of(part, base, complaints) if "method" in part else base
        if "method" not in part or len(complaints) > said:
            complaints.append(f"Column {number} of the link was left out: it names no method that is here.")
            continue
        found.append(address.params_of(part, replace(settings, params={}), complaints))
    if found and not LEAST <= len(found) <= MOST:
        complaints.append(f"A comparison has {LEAST} to {MOST} columns; the link has {len(found)}.")
        return tuple(found[:MOST]) if len(found) > MOST else ()
    return tuple(found)
