"""Imports point down only: pages -> viz, decoding; viz -> trace, looks and score_names of decoding; decoding -> nobody."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import networkx
import pytest

import decoding

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "numpy", "streamlit", "plotly")
FORBIDDEN = {
    "decoding": ("streamlit", "plotly", "viz", "pages", "app", "tests"),
    "viz": ("streamlit", "torch", "transformers", "pages", "app", "tests"),
    "pages": ("app", "tests"),
}


def imported(source: str) -> set[str]:
    """Dotted names a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def files(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def wrong(source: str, forbidden: tuple[str, ...]) -> set[str]:
    return {name for name in imported(source) if name.startswith(".") or any(inside(name, f) for f in forbidden)}


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_layer_imports_only_downwards(layer):
    assert files(layer), layer
    found = {str(file): bad for file in files(layer) if (bad := wrong(file.read_text(), FORBIDDEN[layer]))}
    assert not found


OPEN_TO_VIZ = ("decoding.trace", "decoding.looks", "decoding.score_names")


def test_viz_knows_nothing_of_decoding_but_the_trace_looks_and_the_names_of_scores():
    for file in files("viz"):
        names = {name for name in imported(file.read_text()) if inside(name, "decoding")}
        assert all(any(inside(name, door) for door in OPEN_TO_VIZ) for name in names - {"decoding"}), (file, names)


def test_what_viz_reads_needs_no_model_library():
    plain = ("decoding.trace", "decoding.looks", "decoding.old_names")
    for file in (*(ROOT / f"decoding/{name}.py" for name in ("trace", "old_names", "score_names")), *files("decoding/looks")):
        names = {name for name in imported(file.read_text()) if not any(inside(name, known) for known in plain)} - {"decoding"}
        assert not [name for name in names if any(inside(name, heavy) for heavy in HEAVY) or inside(name, "decoding")], file


LEVELS = {
    "command_line": 5, "training": 4, "runs": 4, "methods": 3, "lenses": 3, "retrieval": 2, "acceptance": 2, "drafting": 2,
    "models": 1,
}  # fmt: skip


def room(module: str) -> str:
    """The room of `decoding` that a module lives in; "" for the core."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVELS else ""


@pytest.mark.parametrize("file", files("decoding"), ids=lambda file: str(file.relative_to(ROOT)))
def test_rooms_of_decoding_import_downwards_only(file):
    """Training and runs over methods over drafting, acceptance and retrieval over models over the core."""
    if file == ROOT / "decoding/__init__.py":  # the door for scripts: it opens everything, lazily
        return
    own = LEVELS.get(room(dotted(file)), 0)
    names = {name for name in imported(file.read_text()) if inside(name, "decoding")}
    assert not [name for name in names if LEVELS.get(room(name), 0) > own]


def dotted(file: Path) -> str:
    """A file of the project as the name it is imported by; a package's own file by the package's."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph() -> networkx.DiGraph:
    """Module -> the modules of the project that it imports anywhere: at the top, inside functions, or for type checkers only.

    A name that is taken through the door of `decoding` counts as an import of the module that it leads to.
    """
    paths = {dotted(file): file for layer in FORBIDDEN for file in files(layer)}
    door = {f"decoding.{name}": module for name, module in decoding.DOOR.items()}
    made = networkx.DiGraph()
    for module, file in paths.items():
        names = (door.get(name, name) for name in imported(file.read_text()))
        made.add_edges_from((module, name) for name in names if name in paths)
    return made


def test_no_import_goes_round_in_a_circle():
    assert not list(networkx.simple_cycles(graph()))


def test_the_door_leads_to_what_it_says_and_the_stub_says_the_same():
    stub = imported((ROOT / "decoding/__init__.pyi").read_text()) - set(decoding.DOOR.values())
    assert stub == {f"{module}.{name}" for name, module in decoding.DOOR.items()}
    for name, module in decoding.DOOR.items():
        assert getattr(decoding, name) is getattr(importlib.import_module(module), name)
        assert name in dir(decoding)
    with pytest.raises(AttributeError, match="lod"):
        decoding.lod  # noqa: B018


def test_the_door_opens_nothing_before_it_is_asked():
    program = f"import decoding, decoding.trace, sys; assert not {{*sys.modules}} & {set(HEAVY)}; from decoding import Sampling"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_methods_know_no_other_method():
    for file in files("decoding/methods"):
        assert not wrong(file.read_text(), ("decoding.methods", "decoding.loop", "decoding.runs.worker")), file


def test_lenses_know_no_other_lens_and_no_method():
    for file in files("decoding/lenses"):
        if file.name != "__init__.py":
            assert not wrong(file.read_text(), ("decoding.lenses", "decoding.methods", "decoding.loop", "decoding.runs")), file


UPWARDS = ("import streamlit", "from viz.step.tree import f", "if 1:\n  from pages import parts", "from ..viz import x")


@pytest.mark.parametrize("source", UPWARDS)
def test_the_check_notices(source):
    assert wrong(source, FORBIDDEN["decoding"])


@pytest.mark.parametrize(("said", "taken"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_leave_the_cores_to_others_unless_somebody_says_otherwise(said, taken):
    """It counts only if it is said before torch reads it."""
    code = "import os, sys, decoding; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": said} if said else {}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [taken, "False"]
