"""Limits of a public server: every door of the backend refuses what goes beyond, with the value; in local mode none does."""

import gzip
import sqlite3
from contextlib import closing, suppress

import pytest

from decoding import limits as rules
from decoding.limits import LOCAL, OWN, PUBLIC, Refused, limits
from decoding.models.catalogue import NAMED
from decoding.models.chat import has_template
from decoding.models.family import load
from decoding.retrieval import default_datastore
from decoding.runs.fetch_job import Fetch
from decoding.runs.prompts import Prompt, read_prompts
from decoding.runs.run import Run
from decoding.runs.store import Store, append, insert
from decoding.runs.study import Plan, Study
from decoding.runs.trace_files import from_json, to_json
from tests.samples import sample_trace
from tests.viz_samples import chain, trace_of

LIMITED = {"tokens", "prompt", "nodes", "jobs_each", "prompts", "upload", "kept", "kept_bytes", "kept_days"}


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")


def small(monkeypatch, **values):
    """A public server with some limits lowered."""
    monkeypatch.setattr(rules, "PUBLIC", rules.Limits(**{**vars(PUBLIC), **values}))
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")


def test_local_is_the_default_and_limits_nothing(monkeypatch):
    monkeypatch.delenv("DRAFTSCOPE_MODE", raising=False)
    assert limits() is LOCAL and not LOCAL.words and LOCAL.allows("/any/folder")
    assert not [name for name in LIMITED if getattr(LOCAL, name) is not None] and LOCAL.whole == rules.Whole()


def test_a_mode_that_is_neither_allows_nothing(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "pulbic")
    with pytest.raises(ValueError, match="'pulbic'"):
        limits()
    with pytest.raises(ValueError, match="must be local or public"):
        load("embedded")


def test_every_limit_of_a_demo_is_said_beforehand(public):
    said = limits().words
    for value in (limits().tokens, limits().nodes, limits().prompt, limits().prompts, limits().kept, limits().kept_days):
        assert f"{value:,}" in said


def test_the_models_of_the_catalogue_with_a_name_of_ours_are_offered():
    assert set(OWN) == set(NAMED)


@pytest.mark.parametrize("name", ["/etc", "../..", "~/x", "org/model", "C:\\models", "file.gguf", "", "embedded "])
def test_no_other_model_is_loaded_or_looked_for(name, public):
    with pytest.raises(Refused, match="offers the models embedded"):
        load(name)
    with pytest.raises(Refused, match="draft model"):
        load("embedded", name)
    assert has_template(name) is False


def test_the_operator_offers_others(monkeypatch, public, folders):
    monkeypatch.setenv("DRAFTSCOPE_MODELS", f" {folders('llama')}, org/other ")
    assert load(folders("llama"), device="auto").name == folders("llama")
    assert limits().models[-1] == "org/other"


def test_device_and_format_are_the_servers(public):
    with pytest.raises(Refused, match="float16"):
        load("embedded", dtype="float16")


@pytest.mark.parametrize(
    ("limit", "asked", "said"),
    [
        ({"tokens": 8}, {"max_tokens": 9}, "at most 8 tokens.*is 9"),
        ({"prompt": 8}, {"prompt": "Once upon a time"}, "at most 8 characters; this one has 16"),
        ({"nodes": 8}, {"method": "token_recycling", "params": {"nodes": 9}}, "at most 8 drafted.*Tree size 9"),
    ],
)
def test_a_run_beyond_the_limits_is_refused(limit, asked, said, embedded, monkeypatch):
    small(monkeypatch, **limit)
    with pytest.raises(Refused, match=said):
        Run(embedded, **({"method": "plain", "prompt": "Once", "max_tokens": 4} | asked))


def test_a_draft_beyond_the_limit_is_refused_before_it_is_read(embedded, monkeypatch):
    small(monkeypatch, nodes=2)
    run = Run(embedded, "speculative_sampling", {"length": 3}, "Once upon a time")
    with pytest.raises(Refused, match="at most 2 drafted tokens per step; this draft has 3"):
        next(run)


def test_a_trace_beyond_the_limits_is_neither_opened_nor_kept(tmp_path, monkeypatch):
    file = to_json(trace_of(chain(3, 5)))
    store = Store(tmp_path)
    for limit, said in (
        ({"nodes": 4}, "this draft has 5"),
        ({"tokens": 0}, "this one has 1"),
        ({"upload": 100}, "at most"),
        ({"said": 3}, "texts"),
    ):
        small(monkeypatch, **limit)
        with pytest.raises(Refused, match=said):
            from_json(file)
    small(monkeypatch, nodes=4)
    with pytest.raises(Refused, match="this draft has 5"):
        store.keep(trace_of(chain(3, 5)), "too large")
    assert not store.count()


def test_a_packed_file_unpacks_to_what_this_server_can_read(monkeypatch):
    """A packed one of a few kilobytes may take the memory of the whole server once it is unpacked."""
    trace = to_json(sample_trace())
    size = len(gzip.decompress(trace))
    small(monkeypatch, unpacked=size - 1)
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    with pytest.raises(ValueError, match=f"unpacks to more than {size - 1:,} bytes"):
        from_json(trace)
    small(monkeypatch, unpacked=size, upload=10**6)
    assert from_json(trace) == sample_trace()
    for kind, line in (("txt", b"aa\n"), ("csv", b"aa\n"), ("jsonl", b"{}\n")):
        with pytest.raises(ValueError, match="unpacks to more than 1,000,000 bytes"):
            read_prompts(gzip.compress(line * 10**6), f"x.{kind}.gz")
    assert PUBLIC.upload < PUBLIC.unpacked <= 32 * 2**20


NESTED = b"[" * 30 + b"]" * 30
OLD = b'{"format":"draftscope-trace","trace":{"header":{"schema":1},"steps":[%s]}}'
ROW = b'{"text":"a","more":[%s]}'


@pytest.mark.parametrize(
    "read",
    [
        lambda parts: from_json(gzip.compress(OLD % parts)),
        lambda parts: from_json(OLD % parts.replace(b"[", b'{"a":').replace(b"]", b"}").replace(b":}", b":0}")),
        lambda parts: read_prompts(gzip.compress(b"[%s]" % (ROW % parts)), "x.json"),
        lambda parts: read_prompts(ROW % parts, "x.jsonl.gz"),
        lambda parts: read_prompts(ROW % parts, "x.NDJSON"),
        lambda parts: read_prompts(ROW % parts, "x.json"),
    ],
)
def test_what_is_read_before_it_is_known_has_so_many_lists_and_objects(read, monkeypatch):
    """Millions of them were made in one go, while all visitors waited for seconds, out of a file of some kilobytes."""
    parts = b",".join([NESTED] * 40)
    small(monkeypatch, brackets=1_000)
    with pytest.raises(Refused, match=r"at most 1,000 brackets, \[ and \{; this one has 1,2"):
        read(parts)
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    with suppress(ValueError):
        read(parts)  # what it holds is seen
    assert PUBLIC.brackets <= 200_000


def test_a_visitor_keeps_so_many_runs_and_bytes(tmp_path, monkeypatch):
    small(monkeypatch, kept=2)
    store = Store(tmp_path)
    ids = [store.keep(sample_trace(), name) for name in "ab"]
    with pytest.raises(Refused, match="kept 2 runs"):
        store.keep(sample_trace(), "c")
    store.delete(ids[0])
    store.keep(sample_trace(), "c")
    store.forget()
    small(monkeypatch, kept_bytes=10)
    with pytest.raises(Refused, match="fill"):
        store.keep(sample_trace(), "d")


def test_a_run_that_does_not_fit_any_more_is_not_kept(tmp_path, monkeypatch):
    """It is weighed with those that are there, before it is written for good."""
    store = Store(tmp_path)
    store.keep(sample_trace(), "a")
    small(monkeypatch, kept_bytes=store.filled + 2**16)
    with pytest.raises(Refused, match="yours would fill"):
        store.keep(trace_of(*[chain(3, 5)] * 200), "long")
    new = store.keep(sample_trace(), "b")
    assert [entry.name for entry in store.entries()] == ["b", "a"]
    long, before = trace_of(*[chain(3, 5)] * 200), store.open(new)
    with pytest.raises(Refused, match="yours would fill"):  # a study goes on with one that is kept
        store.append(new, long.steps, long.token_bytes)
    assert store.open(new) == before


def test_what_is_being_kept_beside_it_does_not_count_yet(tmp_path, monkeypatch):
    """A large run that was refused, or is not written for good, made all others too many."""
    store, long = Store(tmp_path), trace_of(*[chain(3, 5)] * 200)
    store.keep(sample_trace(), "a")
    small(monkeypatch, kept_bytes=store.filled + 2**16)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        append(other, insert(other, long.header, long.token_bytes, "long", "", ""), long.steps, long.token_bytes)
        assert store.filled + 2**16 == rules.PUBLIC.kept_bytes
        other.execute("ROLLBACK")
    assert on_disk(store) > rules.PUBLIC.kept_bytes and store.keep(sample_trace(), "b")


def test_what_is_forgotten_gives_its_room_back(tmp_path):
    store = Store(tmp_path)
    for _ in range(20):
        store.keep(trace_of(*[chain(3, 5)] * 40), "long")
    full = on_disk(store)
    assert store.forget(before=0) == 0 and store.count() == 20
    assert store.forget() == 20 and not store.count() and on_disk(store) < full / 3


def on_disk(store: Store) -> int:
    return sum(file.stat().st_size for file in store.folder.iterdir())


def test_a_study_and_its_file(embedded, tmp_path, monkeypatch):
    small(monkeypatch, prompts=2, upload=30)
    plan = Plan("embedded", "plain", (Prompt("a", "x"),) * 3)
    with pytest.raises(Refused, match="at most 2 prompts at a time; there are 3"):
        Study(embedded, plan, Store(tmp_path))
    with pytest.raises(Refused, match="files of at most"):
        read_prompts(b"Once upon a time\n\n" * 3, "p.txt")


def test_nothing_is_fetched_and_no_datastore_is_built(embedded, public, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))
    with pytest.raises(Refused, match="builds no datastores"):
        default_datastore.of_family(embedded)
    with pytest.raises(Refused, match="fetches no models"):
        Fetch("org/model")
