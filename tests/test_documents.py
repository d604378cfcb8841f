"""What documents and docstrings name is there: paths, commands, modules. A name that moved is noticed where it is still told."""

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMAND_LINE = ROOT / "decoding" / "command_line.py"
CARD = ROOT / "decoding" / "embedded" / "README.md"
NAMES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md")), CARD]
FOLDERS = ("decoding", "viz", "pages", "tests")
PLACES = (*FOLDERS, "deploy", "docs", ".ci", ".github", ".streamlit")  # a path that begins elsewhere is none of ours
MOST = 10_000  # bytes of the README: a page that is read to its end
LAYERS = ("decoding", "viz", "pages", "tests")

TICKS = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
MODULE = re.compile(r"python3? -m ([\w.]+)")
TRAINING = re.compile(r"python3? -m decoding\.training ([a-z]\w*)")
SUBCOMMAND = re.compile(r"draftscope ([a-z]\w*)")
ATTRIBUTE = re.compile(r"`([A-Z]\w+)\.(?!md`)(\w+)`")
DOTTED = re.compile(r"`((?:decoding|viz|pages|tests)(?:\.\w+)+)")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, PLACES))})/[\w./-]*\w/?")
FOLDER = re.compile(r"[\w.-]+(?:/[\w.-]+)*/")
FILE = re.compile(r"[\w-]+\.(?:py|pyi|md|toml|txt|msgpack|npy)")


def missing_paths(text: str, folder: Path = ROOT) -> set[str]:
    """What a document names and is not there: paths from the root wherever they stand, links from the document's own folder,
    and between backticks names of folders and files, which must be somewhere in the project."""
    files, folders = everything()
    links = {link.split("#")[0] for link in LINK.findall(text) if not re.match(r"\w+://|#", link)}
    said = set(TICKS.findall(text))
    return (
        {path for path in PATH.findall(text) if not is_there(ROOT / path)}
        | {link for link in links if not (folder / link).exists()}
        | {name for name in said if FILE.fullmatch(name) and name not in files and "X" not in name}
        | {name for name in said if FOLDER.fullmatch(name) and not any(f"/{one}/".endswith(f"/{name}") for one in folders)}
    )


def is_there(path: Path) -> bool:
    """X stands for any name: `viz/methods/X.py` is there if a file is."""
    pattern = re.sub(r"(?<![A-Za-z])X(?=\.)", "*", path.name)
    return any(path.parent.glob(pattern)) if "*" in pattern else path.exists()


@cache
def everything() -> tuple[set[str], set[str]]:
    """Names of the project's files; paths of its folders, and of those that git ignores: they appear with use."""
    found = [path for place in PLACES for path in (ROOT / place).rglob("*")] + list(ROOT.iterdir())
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines() if line.endswith("/")}
    folders = {str(path.relative_to(ROOT)) for path in found if path.is_dir()}
    return {path.name for path in found if path.is_file()}, folders | ignored


def programs(text: str) -> set[str]:
    """Modules that a document runs with `python -m`, those of others left out."""
    return {name for name in MODULE.findall(text) if name.split(".")[0] in FOLDERS}


def runs(module: str) -> bool:
    """Whether `python -m` finds a program there, judged by its text: a main that is called when the file is run."""
    place = ROOT / module.replace(".", "/")
    file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    return file.is_file() and 'if __name__ == "__main__":' in file.read_text("utf-8")


def named_modules(source: str) -> set[str]:
    """Dotted names between backticks, in the docstrings and comments of a file."""
    return {name for name in DOTTED.findall(source) if not name.endswith((".py", ".md"))}


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the project, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        file = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        if file.is_file():
            return has(ast.parse(file.read_text("utf-8")).body, parts[count:])
        if place.is_dir():
            return count == len(parts)
    return False


def has(body: list[ast.stmt], names: list[str]) -> bool:
    """Whether a file or class defines a name, and that one the next."""
    if not names:
        return True
    for part in body:
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name == names[0]:
            return len(names) == 1 or (isinstance(part, ast.ClassDef) and has(part.body, names[1:]))
        targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
        if any(isinstance(name, ast.Name) and name.id == names[0] for target in targets for name in ast.walk(target)):
            return len(names) == 1
    return False


@cache
def classes() -> dict[str, list[list[ast.stmt]]]:
    """What stands in the classes of the project, by their names."""
    found: dict[str, list[list[ast.stmt]]] = {}
    for file in (file for layer in ("decoding", "viz", "pages") for file in (ROOT / layer).rglob("*.py")):
        for part in ast.parse(file.read_text("utf-8")).body:
            if isinstance(part, ast.ClassDef):
                found.setdefault(part.name, []).append(part.body)
    return found


def missing_attributes(text: str) -> list[str]:
    """`Class.attribute` of a document that no class of the project has."""
    return [
        f"{name}.{one}" for name, one in ATTRIBUTE.findall(text) if not any(has(body, [one]) for body in classes().get(name, []))
    ]


def identified(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identified)
def test_every_path_that_a_document_names_is_there(document):
    assert not missing_paths(document.read_text("utf-8"), document.parent)


@pytest.mark.parametrize("document", DOCUMENTS, ids=identified)
def test_every_attribute_that_a_document_names_is_there(document):
    assert not missing_attributes(document.read_text("utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identified)
def test_every_module_that_a_document_runs_is_a_program(document):
    assert not [name for name in programs(document.read_text("utf-8")) if not runs(name)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=identified)
def test_every_method_that_a_document_trains_can_be_trained(document):
    known = {file.stem for file in (ROOT / "decoding/training/recipes").glob("*.py")}
    assert set(TRAINING.findall(document.read_text("utf-8"))) <= known


@pytest.mark.skipif(not COMMAND_LINE.exists(), reason=f"{COMMAND_LINE.name} is not there yet")
def test_every_subcommand_that_a_document_names_is_one(capsys):
    command_line = importlib.import_module("decoding.command_line")
    with pytest.raises(SystemExit) as end:
        command_line.main(["--help"])
    known = set(re.findall(r"^ +(\w+)\b", capsys.readouterr().out, re.MULTILINE))
    told = {name for document in DOCUMENTS for name in SUBCOMMAND.findall(document.read_text("utf-8"))}
    assert end.value.code == 0 and {"run", "evaluate", "fetch", "check"} <= told <= known
    assert "draftscope" in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]


def test_every_option_that_the_documents_give_a_program_is_one_of_its():
    """An option is looked for in the text of the program's file, and of those that add options to what is trained."""
    shared = [ROOT / "decoding/training/train.py", *(ROOT / "decoding/training/recipes").glob("*.py")]
    for document in DOCUMENTS:
        for line in document.read_text("utf-8").splitlines():
            for command in re.findall(r"python3? -m (?:decoding|tests)[^`|#]*", line):
                module, *given = command.split()[2:]
                own = [] if module == "decoding.training" else [ROOT / f"{module.replace('.', '/')}.py"]
                files = own + shared if module.startswith("decoding.training") else own
                known = {option for file in files for option in re.findall(r'"(--[\w-]+)"', file.read_text("utf-8"))}
                assert {word for word in given if word.startswith("--")} <= known, (identified(document), command)


def test_the_readme_is_short_and_keeps_its_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.encode()) < MOST
    blocks = dict(re.findall(r"<!-- (start|test) -->\n```bash\n(.+)\n```", text))
    assert "streamlit run app.py" in blocks["start"] and "pytest" in blocks["test"]


def files(layer: str) -> list[Path]:
    return [file for file in sorted((ROOT / layer).rglob("*.py")) if file != Path(__file__)]  # its own faults are planted


@pytest.mark.parametrize("layer", LAYERS)
def test_docstrings_name_modules_that_exist(layer):
    found = {identified(file): named_modules(file.read_text("utf-8")) for file in files(layer)}
    assert not {file: wrong for file, names in found.items() if (wrong := {name for name in names if not exists(name)})}


@pytest.mark.parametrize("layer", LAYERS)
def test_docstrings_run_programs_that_exist(layer):
    found = {identified(file): programs(file.read_text("utf-8")) for file in files(layer)}
    assert not {file: wrong for file, names in found.items() if (wrong := {name for name in names if not runs(name)})}


# -- planted faults ----------------------------------------------------------------------------------------------------


WRONG = (
    "`viz/heads.py`",
    "    pip install -r tests/needs.txt",
    "[there](docs/nowhere.md#part)",
    "![picture](.github/step.gif)",
    "`viz/methods/test_X.py`",
    "`pages/parts/stage/`",
    "`stage/`",
    "`joint_tree.py`",
)
RIGHT = (
    "`viz/methods/X.py`",
    "[a](README.md#start)",
    "[a](https://a.org/docs/b.md)",
    "`path/to/head`",
    "`p/q`",
    "`recipes/`",
    "`loop.py`",
)


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_path_is_noticed(text):
    assert len(missing_paths(f"Words before\n{text}\nand behind.")) == 1


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_or_none_of_ours_is_left_alone(text):
    assert not missing_paths(f"Words before, {text}, and behind.")


@pytest.mark.parametrize("module", ["decoding.evaluate", "decoding.loop", "decoding.models", "tests.bench_step"])
def test_a_program_that_is_none_is_noticed(module):
    assert programs(f"`python -m {module} --out DIR`") == {module} and not runs(module)


def test_an_attribute_that_is_gone_is_noticed():
    assert missing_attributes("`Draft.visible`, `Draft.beliefs`, `Reading.probs`, `README.md`") == [
        "Draft.beliefs",
        "Reading.probs",
    ]


MOVED = ("decoding.joint_tree", "decoding.drafting.dynamic_tree.growing", "viz.step.tree.X", "viz.heads")


@pytest.mark.parametrize("name", [*MOVED, "viz.step", "viz.step.tree.tree_figure", "decoding.draft.Draft.visible"])
def test_a_module_that_moved_is_noticed(name):
    assert named_modules(f"# as `{name}` says") == {name}
    assert exists(name) == (name not in MOVED)
