"""A draft tree as a graph and as files for graph tools, whatever its tokens hold."""

import io
import json
import math

import networkx
import pytest

from decoding.runs.tree_files import ROOT, draft_tree, to_graphml, to_node_link
from decoding.trace import Step
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, small_tree, step_of

CONTROLS = {200 + code: bytes([code]) for code in range(33)} | {
    300: b"\xef\xbf\xbe",
    301: b"\xed\xa0\x80",
    302: "🌿 \u2028".encode(),
}
EVERYTHING = HOSTILE | CONTROLS


def hostile() -> Step:
    """A tree with one node per token, and names of sources and scores that are no better."""
    nodes = [node(token, i - 1 if i % 3 else -1) for i, token in enumerate(EVERYTHING)]
    named = node(100, -1, "rejected", q=None, u=None, source="\x00<head>", scores={"a\x01<b>": math.inf, "depth": 2.0})
    return step_of([*nodes, named])


def from_graphml(data: bytes) -> networkx.DiGraph:
    return networkx.read_graphml(io.BytesIO(data), node_type=int)


def test_the_graph_says_what_the_step_says():
    step = small_tree()
    tree = draft_tree(step, TOKEN_BYTES)
    assert networkx.is_arborescence(tree) and list(tree) == [ROOT, *range(len(step.nodes))]
    for i, drafted in enumerate(step.nodes):
        said = tree.nodes[i]
        assert [*tree.predecessors(i)] == [drafted.parent]
        assert said["text"].encode() == TOKEN_BYTES[drafted.token] and said["depth"] == tree.nodes[drafted.parent]["depth"] + 1
        for name in ("token", "verdict", "p", "q", "u", "source"):
            assert said.get(name) == getattr(drafted, name)


def test_scores_keep_their_names_apart_from_the_rest():
    tree = draft_tree(step_of([node(0, -1, scores={"depth": 7.0}, q=None)]), TOKEN_BYTES)
    assert tree.nodes[0]["depth"] == 1 and tree.nodes[0]["score: depth"] == 7.0 and "q" not in tree.nodes[0]


@pytest.mark.parametrize("step", [chain(), small_tree(), step_of(), hostile()], ids=["chain", "tree", "empty", "hostile"])
def test_node_link_json_is_read_back(step):
    data = json.loads(to_node_link(step, TOKEN_BYTES | EVERYTHING), parse_constant=pytest.fail)
    back, tree = networkx.node_link_graph(data, edges="edges"), draft_tree(step, TOKEN_BYTES | EVERYTHING)
    assert list(back) == list(tree) and list(back.edges) == list(tree.edges)
    for i, said in tree.nodes(data=True):
        assert back.nodes[i] == {name: None if value == math.inf else value for name, value in said.items()}


@pytest.mark.parametrize("step", [chain(), small_tree(), step_of(), hostile()], ids=["chain", "tree", "empty", "hostile"])
def test_graphml_is_read_back(step):
    back, tree = from_graphml(to_graphml(step, TOKEN_BYTES | EVERYTHING)), draft_tree(step, TOKEN_BYTES | EVERYTHING)
    assert sorted(back) == sorted(tree) and sorted(back.edges) == sorted(tree.edges)
    for i, said in tree.nodes(data=True):
        for name in ("token", "verdict", "p", "q", "u", "depth"):
            assert back.nodes[i].get(name) == said.get(name)


def test_what_xml_does_not_allow_is_written_out():
    back = from_graphml(to_graphml(hostile(), EVERYTHING))
    text = {said["token"]: said.get("text", "") for _, said in back.nodes(data=True) if "token" in said}
    assert text[100] == "<script>alert(1)</script>" and text[107] == '"><a href="x">' and text[109] == "&lt;"
    assert text[104] == r"\xc3" and text[110] == "\\x00\\x1b\u200b" and text[103] == "\u202eRTL"
    assert text[200] == r"\x00" and text[207] == r"\x07" and text[213] == r"\r" and text[209] == "\t" and text[210] == "\n"
    assert text[232] == " " and text[300] == r"\ufffe" and text[301] == r"\xed\xa0\x80" and text[302] == "🌿 \u2028"
    last = back.nodes[len(EVERYTHING)]
    assert last["source"] == r"\x00<head>" and last[r"score: a\x01<b>"] == math.inf and "q" not in last
