"""Shared by all tests: no network, one thread, and the families that take a moment to make."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: an unknown id must fail at once

import pytest
import torch

from decoding.methods import s2d
from decoding.models import heads
from decoding.models.family import Family, load
from decoding.retrieval import default_datastore
from tests import toys

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def small_datastores(tmp_path_factory):
    """Stores of the retrieval methods are built in a moment, and not in the user's cache folder."""
    os.environ["DRAFTSCOPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    default_datastore.LIMIT = 200_000


@pytest.fixture(scope="session", autouse=True)
def toy_heads(small_datastores):
    """Random models have the heads they need; those of the embedded family are the shipped ones."""
    heads.find = toys.heads_on_demand(heads.find)


@pytest.fixture(scope="session", autouse=True)
def toy_sorted_drafts():
    """Random models have the sorted draft model they need; that of the embedded families is the shipped one."""
    s2d.find = toys.sorted_on_demand(s2d.find)


@pytest.fixture(scope="session")
def embedded() -> Family:
    return load("embedded", device="cpu")


@pytest.fixture(scope="session")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tokenizer):
    """kind -> folder with a random model of that architecture and a tokenizer; made when first asked for."""
    made = {}

    def folder(kind: str) -> str:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            toys.save(path, toys.causal_lm(kind), tokenizer)
            made[kind] = str(path)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def families(folders):
    """kind -> a loaded family whose draft model is its target with noise on the weights; made when first asked for."""
    made = {}

    def family(kind: str) -> Family:
        if kind not in made:
            made[kind] = toys.with_draft(load(folders(kind), device="cpu"))
        return made[kind]

    return family


@pytest.fixture(scope="session")
def llama(families) -> Family:
    return families("llama")
