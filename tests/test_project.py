"""The project's own files: what is imported is declared, what is declared is imported, and what is installed is everything."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_imports import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TOOLS = {
    "accelerate",
    "pytest_timeout",
    "pytest_xdist",
    "ruff",
    "pyright",
}  # of tests/requirements.txt, used without being imported
IMPORTED_AS = {"pillow": "pil", "pyyaml": "yaml"}  # where the name of a package is another
EXTRAS = PROJECT["project"]["optional-dependencies"].values()
OPTIONAL = {need.split(">")[0].split("[")[0] for needs in EXTRAS for need in needs}
PARQUET = "pyarrow"  # which pandas imports for `to_parquet`


def declared(file: str) -> set[str]:
    """The packages that a file of requirements names, as they are imported."""
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text("utf-8").splitlines())
    names = {line.split(">")[0].split("=")[0].split("[")[0] for line in lines if line}
    return {IMPORTED_AS.get(name.lower(), name.lower().replace("-", "_")) for name in names}


def third_party(*places: str) -> set[str]:
    """The packages from elsewhere that the files of these folders import, anywhere in them."""
    found = set()
    for file in (file for place in places for file in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return {name.lower() for name in found} - set(sys.stdlib_module_names) - {"decoding", "viz", "pages", "tests", "deploy"}


def test_every_import_is_declared_and_every_declaration_is_imported():
    needed = third_party("app.py", "decoding", "viz", "pages")
    if "to_parquet(" in (ROOT / "decoding/runs/trace_files.py").read_text("utf-8"):
        needed.add(PARQUET)
    assert needed - OPTIONAL == declared("requirements.txt")


def test_every_import_of_a_test_is_declared():
    assert third_party("tests") <= declared("requirements.txt") | declared("tests/requirements.txt")
    assert declared("tests/requirements.txt") <= third_party("tests") | TOOLS


def test_a_refusal_has_no_marks_of_a_format():
    """It is shown in a terminal, as Markdown and as HTML alike: a command in it stands at its end, without backticks."""
    marked = []
    for file in (file for room in ("decoding", "pages") for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))) if file.name != "card.py" else ():
            calls = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("refuse", "ValueError")
            if calls or isinstance(node, ast.Return):
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                marked += [f"{file.relative_to(ROOT)}:{node.lineno}" for text in texts if "`" in text]
    assert not marked


def test_what_is_optional_is_what_the_tests_have():
    """Under the name that the sentence gives which misses it."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert extras == {"accelerate": ["accelerate>=1.10,<2"], "ray": ["ray>=2.60,<3"]}
    for name, file in (("accelerate", "decoding/models/spread.py"), ("ray", "decoding/runs/cluster.py")):
        assert extras[name][0] in (ROOT / "tests/requirements.txt").read_text("utf-8").splitlines()
        assert f"draftscope[{name}]" in (ROOT / file).read_text("utf-8")


def test_the_dependencies_stand_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["dependencies"] and "dependencies" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}


def tracked() -> set[Path]:
    """Every file of the project, as git knows it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return {Path(line) for line in listed.stdout.splitlines()}


def test_everything_that_runs_is_installed():
    """Streamlit starts what lies in the folder `draftscope`; the packages lie beside it."""
    settings = PROJECT["tool"]["setuptools"]
    folders = {name: Path("." if name == "draftscope" else name.replace(".", "/")) for name in settings["packages"]}
    installed = {file for folder in folders.values() for file in (ROOT / folder).glob("*.py")}
    for name, patterns in settings["package-data"].items():
        installed |= {file for pattern in patterns for file in (ROOT / folders[name]).glob(pattern) if file.is_file()}
    wanted = {f for f in tracked() if f.parts[0] in ("app.py", "decoding", "viz", "pages", ".streamlit")}
    assert wanted <= {file.relative_to(ROOT) for file in installed}


def test_the_same_is_checked_before_the_tests_and_before_a_commit():
    run, hooks = ((ROOT / file).read_text("utf-8") for file in (".ci/run", ".pre-commit-config.yaml"))
    checks = [line.removeprefix(".venv/bin/") for line in run.splitlines() if line.startswith(".venv/bin/")]
    assert checks == ["ruff check .", "ruff format --check .", "pyright"]
    assert [line.split("entry: ")[1] for line in hooks.splitlines() if "entry: " in line] == checks


def test_the_types_of_the_core_and_of_the_models_are_checked():
    assert {"decoding/*.py", "decoding/models"} <= set(PROJECT["tool"]["pyright"]["include"])


def test_no_page_makes_its_folder_a_package():
    """`pages` lies in two places once it is installed, which only a folder without `__init__.py` may."""
    assert not (ROOT / "pages/__init__.py").exists()


def test_nothing_is_left_of_a_merge():
    """Marks of a conflict that stand in a comment or a text disturb no other check."""
    marks = tuple(mark * 7 + " " for mark in "<>")
    for ending in ("py", "md", "toml", "css", "js"):
        for file in (file for file in ROOT.rglob(f"*.{ending}") if ".venv" not in file.parts):
            assert not [line for line in file.read_text("utf-8").splitlines() if line.startswith(marks)], file
