"""The command `draftscope`: what it prints, what it hands on, and that a user's mistake is one sentence and exit code 2."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from decoding import command_line
from decoding.command_line import COLORS, MARKS, main, marked, visible
from decoding.runs.prompts import Prompt
from decoding.runs.store import Query, Store
from decoding.runs.trace_files import from_json
from pages.parts.drafter.sidebar import job
from pages.parts.shared.settings import Settings
from tests import toys
from tests.test_imports import ROOT

PROMPT = "Once upon a time"


@pytest.fixture(autouse=True)
def called(monkeypatch):
    """By its name, not by pytest's."""
    monkeypatch.setattr(sys, "argv", ["draftscope"])


def said(capsys) -> str:
    """What went to the error stream: one line."""
    out, err = capsys.readouterr()
    assert not out and err.endswith("\n") and err.count("\n") == 1
    return err.strip()


def code(arguments: list[str]) -> int:
    """The exit code, however it ends."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_a_run_is_printed_with_its_marks_and_numbers(capsys):
    assert main(["run", PROMPT, "--method", "eagle", "--params", "nodes=8", "--temperature", "0", "--tokens", "24"]) == 0
    text, _, below = capsys.readouterr().out.partition("\n\n")
    assert text.startswith(PROMPT + "[") and "]" in text
    assert below.startswith("tau ") and " alpha " in below and below.splitlines()[1].startswith("[accepted], {correction}")


def test_a_model_with_a_template_is_asked_in_chat_form(capsys, tmp_path):
    toys.save(tmp_path, toys.causal_lm("llama", vocab_size=toys.VOCAB + len(toys.MARKS)), toys.chatting())
    usual = ["run", "the cat", "--target", str(tmp_path), "--method", "plain", "--tokens", "2"]
    assert main([*usual, "--system", "a mat", "--template", "loud=on,name=Tom"]) == 0
    assert capsys.readouterr().out.startswith("<|system|>a mat<|end|><|user|>the cat<|end|>LOUD Tom<|assistant|>")
    assert main([*usual, "--plain"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
    assert main([*usual, "--plain", "--system", "a mat"]) == 2 and "Only a chat has a system message" in said(capsys)
    assert main([*usual, "--plain", "--template", "loud=on"]) == 2 and "Only a chat has template options" in said(capsys)
    assert main(["run", "the cat", "--chat"]) == 2 and "has no chat template" in said(capsys)


@pytest.mark.parametrize("wrong", [["--params", "length=99"], ["--tokens", "0"]])
def test_what_is_wrong_with_a_run_is_said_before_a_model_is_loaded(wrong, capsys):
    assert main(["run", "the cat", "--target", "/nowhere/at/all", *wrong]) == 2
    assert "/nowhere" not in said(capsys)


def test_the_printed_text_is_that_of_the_trace(capsys, tmp_path):
    for file in ("run.json", "run.json.gz"):
        assert main(["run", PROMPT, "--params", "length=2", "--tokens", "20", "--seed", "7", "--json", str(tmp_path / file)]) == 0
    printed = capsys.readouterr().out
    trace = from_json((tmp_path / "run.json").read_bytes())
    assert trace.header.params == {"length": 2} and trace.header.seed == 7 and trace.header.prompt == PROMPT
    assert (tmp_path / "run.json").read_bytes()[:1] == b"{" and (tmp_path / "run.json.gz").read_bytes()[:2] == b"\x1f\x8b"
    text = printed.split("\n\n")[0]
    assert "".join(c for c in text if c not in "[]{}") == PROMPT + visible(trace.text_bytes().decode())
    tokens, calls = sum(len(step.tokens) for step in trace.steps), len(trace.steps)
    assert f"tau {tokens / calls:.2f} ({tokens} tokens, {calls} target calls)" in printed


HOSTILE = [
    (b"\x1b[31m", "accepted"),
    (b"\xe2\x82", "bonus"),
    (b"\xac", "correction"),
    (b"\xff\r\x00", "plain"),
    (b"\xc3", "accepted"),
]


def test_no_token_commands_the_terminal_and_half_characters_wait_for_their_rest():
    assert "".join(marked(HOSTILE, MARKS)) == "[\\x1b[31m]{€}�\\r\\x00�"
    assert "".join(marked(HOSTILE, COLORS)).count("\033") == 4  # two marks, each put on and taken off


MISTAKES = {
    "run x --method nope": "There is no method 'nope'; there are plain",
    "run x --params length": "A parameter is given as NAME=VALUE; it is 'length'.",
    "run x --params length=long": "The parameter length must be of kind int; it is 'long'.",
    "run x --params size=3": "has no parameter 'size'; it has length.",
    "run x --params length=99": "it is 99.",
    "run x --method dyspec --params adaptive=perhaps": "The parameter adaptive must be of kind bool; it is 'perhaps'.",
    "run x --temperature 9": "The temperature must lie between 0 and 2; it is 9.0.",
    "run x --tokens 0": "The token limit must lie between 1 and",
    "run x --json /no/such/folder/run.json": "There is no folder '/no/such/folder' to keep the trace in.",
    "run x --target /no/such/folder": "'/no/such/folder' is neither a folder nor the id of a model",
    "run x --device abacus": "There is no device 'abacus'",
    "run": "the following arguments are required: prompt",
    "check /no/such/folder": "'/no/such/folder' is neither a folder nor the id of a model",
    "fetch smollm3000": "There is nothing to fetch by the name 'smollm3000'",
    "train nope": "There is no training for 'nope'",
    "--port 0": "A port is a number from 1 to 65535; it is '0'",
    "nope": "invalid choice: 'nope'",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_a_sentence(words, capsys):
    assert code(words.split()) == 2
    assert MISTAKES[words] in said(capsys)


def test_check_says_what_a_family_is_and_what_it_cannot_serve(capsys, folders):
    assert main(["check", folders("llama"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("passed the self-test.")
    assert (
        printed[1].startswith("target: LlamaForCausalLM, 2 layers, hidden size 32") and "vocabulary 280, context 160" in printed[1]
    )
    assert printed[1].endswith("for every 1,000 tokens of text")
    served = printed[2].removeprefix("methods: ").split(", ")
    assert "plain" in served and "speculative_sampling" not in served
    assert any(line.startswith("not speculative_sampling: Speculative sampling needs a draft model") for line in printed[3:])


def test_fetch_says_that_nothing_needs_to_be_fetched(capsys):
    assert main(["fetch", "embedded"]) == 0
    assert "is shipped" in capsys.readouterr().out


def test_a_study_is_kept_where_the_page_finds_it_and_goes_on(capsys, tmp_path):
    """The plan's key is that of the page's settings; a second call runs nothing anew."""
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "Once upon a time", "domain": "a"}\n{"text": "import os", "domain": "b"}\n', "utf-8")
    usual = ["study", "--prompts", str(file), "--tokens", "8", "--method", "prompt_lookup", "--store", str(tmp_path / "store")]
    assert main([*usual, "--temperature", "0", "--params", "length=5"]) == 0
    table = capsys.readouterr().out
    assert [line.split("|")[1:3] for line in table.splitlines()[2:5]] == [[" a ", " 1 "], [" b ", " 1 "], [" all ", " 2 "]]
    settings = Settings(method="prompt_lookup", params={"length": 5}, temperature=0.0, max_tokens=8)
    prompts = (Prompt("Once upon a time", "a"), Prompt("import os", "b"))
    store = Store(tmp_path / "store")
    kept = store.entries(Query(study=job(settings, prompts, "A").key))
    assert len(kept) == 2 and f"study {kept[0].study}" in table
    assert main([*usual, "--temperature", "0", "--params", "length=5"]) == 0
    assert [entry.id for entry in store.entries(Query())] == [entry.id for entry in kept]
    assert table == capsys.readouterr().out


def test_a_study_that_cannot_be_is_a_sentence(capsys, tmp_path):
    usual = ["study", "--store", str(tmp_path / "store"), "--tokens", "4"]
    for more, why in (
        (["--prompts", str(tmp_path / "none.txt")], "none.txt"),
        (["--params", "length=many"], "must be of kind int"),
        (["--tokens", "0"], "0"),
        (["--chat"], "has no chat template"),
        (["--stop", "several tokens"], "A run stops at single tokens"),
        (["--draft", str(tmp_path)], str(tmp_path)),
    ):
        assert code([*usual, *more]) == 2 and why in said(capsys)


def test_evaluate_and_train_are_handed_their_options(monkeypatch, capsys):
    got = []
    monkeypatch.setattr("decoding.runs.evaluate.main", lambda given: got.append(given))
    monkeypatch.setattr("decoding.training.__main__.main", lambda given: got.append(given))
    assert main(["evaluate", "--out", "here"]) == main(["train", "medusa", "--rows", "4"]) == 0
    assert got == [["--out", "here"], ["medusa", "--rows", "4"]]


def test_the_programs_behind_it_are_called_by_its_name(capsys):
    for words in ("evaluate --help", "train medusa --help"):
        assert code(words.split()) == 0
        assert f"usage: draftscope {words.split()[0]}" in capsys.readouterr().out


def test_the_app_takes_the_process_over(monkeypatch):
    got = []
    monkeypatch.setattr(command_line.os, "execv", lambda program, command: got.append(command))
    main(["--port", "8765", "--host", "127.0.0.1"])
    main([])
    assert got[0][:4] == [sys.executable, "-P", "-m", "streamlit"] and got[0][5] == str(ROOT / "app.py")
    assert got[0][6:] == ["--server.port=8765", "--server.address=127.0.0.1"] and not got[1][6:]


def test_the_app_is_found_where_a_wheel_puts_it(monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "__file__", str(tmp_path / "decoding" / "command_line.py"))
    with pytest.raises(ValueError, match="no app.py"):
        command_line.app_folder()
    (tmp_path / "draftscope").mkdir()
    (tmp_path / "draftscope" / "app.py").touch()
    assert command_line.app_folder() == tmp_path / "draftscope"


def test_the_app_starts_from_any_folder_whatever_lies_there(tmp_path):
    (tmp_path / "decoding.py").write_text("raise SystemExit('the wrong one')")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-P", "-m", "decoding.command_line", "--port", str(port), "--host", "127.0.0.1"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    app = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, **quiet)
    try:
        assert answers(f"http://127.0.0.1:{port}/_stcore/health")
    finally:
        app.terminate()
        app.wait(20)


def answers(address: str) -> bool:
    """Whether something answers there within a minute or two."""
    for _ in range(240):
        try:
            return urllib.request.urlopen(address, timeout=5).read() == b"ok"
        except OSError:
            time.sleep(0.5)
    return False
