"""The draft tree of one step as a `networkx.DiGraph`, and as files for graph tools: GraphML and node-link JSON.

Node -1 is the root, the end of the committed text; the others carry the numbers that they have in the step. Edges lead from parents
to children. What a node does not have (no q, no u) is left out: GraphML knows no null.
"""

import io
import re
from collections.abc import Mapping

import msgspec
import networkx

from decoding.trace import Node, Step

ROOT = -1
NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # nor \r, which XML reads as \n


def draft_tree(step: Step, token_bytes: Mapping[int, bytes]) -> networkx.DiGraph:
    """The root and every drafted node, in the order of the step, with what the trace says of them."""
    tree = networkx.DiGraph()
    tree.add_node(ROOT, text="", verdict="root", depth=0)
    for i, node in enumerate(step.nodes):
        tree.add_node(i, **facts(node, token_bytes), depth=tree.nodes[node.parent]["depth"] + 1)
        tree.add_edge(node.parent, i)
    return tree


def facts(node: Node, token_bytes: Mapping[int, bytes]) -> dict[str, int | float | str]:
    """Plain values by name; the method's own numbers are called `score: NAME`."""
    text = token_bytes.get(node.token, b"").decode("utf-8", "backslashreplace")
    said = {
        "token": node.token,
        "text": text,
        "verdict": node.verdict,
        "p": node.p,
        "q": node.q,
        "u": node.u,
        "source": node.source,
    }
    said |= {f"score: {name}": value for name, value in node.scores.items()}
    return {name: value for name, value in said.items() if value is not None}


def to_graphml(step: Step, token_bytes: Mapping[int, bytes]) -> bytes:
    """GraphML; characters that XML does not allow are written out: a NUL becomes the four characters \\x00."""
    tree = draft_tree(step, token_bytes)
    for _, said in tree.nodes(data=True):
        named = {xml_text(name): xml_text(value) if isinstance(value, str) else value for name, value in said.items()}
        said.clear()
        said.update(named)
    out = io.BytesIO()
    networkx.write_graphml_xml(tree, out, encoding="utf-8")
    return out.getvalue()


def xml_text(text: str) -> str:
    return NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def to_node_link(step: Step, token_bytes: Mapping[int, bytes]) -> bytes:
    """Node-link JSON, which `networkx.node_link_graph` reads. A number that JSON does not have (infinity) becomes null."""
    return msgspec.json.encode(networkx.node_link_data(draft_tree(step, token_bytes), edges="edges"))
