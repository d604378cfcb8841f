"""Trees over a short text: words in phrases in a sentence, or the syntax tree of a line of Python; and what one with holes admits.

Offsets count bytes, as tokens do. Every node owns the bytes of its span that no child covers, and costs what the tokens cost that
begin there. Khakhar, Mell and Bastani 2023, https://arxiv.org/abs/2302.08703, cut syntax trees; words and phrases are ours.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WORD = re.compile(rb"\S+")
PHRASE_END = re.compile(rb"[,;:]['\"]?$|^--?$")
MOST_COST = 10.0  # of a node, as in the released code
MAX_SOURCE = 2000  # bytes that are parsed
COMPOUND = (b"if ", b"for ", b"while ", b"with ", b"def ", b"class ", b"async ")


@dataclass(frozen=True)
class Tree:
    """Nodes in reading order, parents before children; node 0 is the root."""

    source: bytes
    parents: tuple[int, ...]  # -1 for the root
    spans: tuple[tuple[int, int], ...]  # in bytes of the source
    labels: tuple[str, ...]  # what must be the same in a text that the node stands in
    runs: bool  # a hole takes the place of any number of neighbours (text), not of exactly one (code)
    ended: bool = True  # nothing follows; otherwise a text may go on behind the last node
    children: tuple[tuple[int, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        below: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                below[parent].append(node)
        object.__setattr__(self, "children", tuple(map(tuple, below)))

    def __len__(self) -> int:
        return len(self.parents)


def text_tree(source: bytes, ended: bool = True) -> Tree:
    """Root, phrases, words; a word is what stands between blanks.

    >>> [text_tree(b"He ran, and fell.").source[a:b] for a, b in text_tree(b"He ran, and fell.").spans]
    [b'He ran, and fell.', b'He ran,', b'He', b'ran,', b'and fell.', b'and', b'fell.']
    """
    words = [match.span() for match in WORD.finditer(source)]
    phrases: list[list[tuple[int, int]]] = [[]]
    for start, end in words:
        phrases[-1].append((start, end))
        if PHRASE_END.search(source[start:end]):
            phrases.append([])
    parents, spans, labels = [-1], [(0, len(source))], [""]
    for phrase in filter(None, phrases):
        at = len(parents)
        parents.append(0)
        spans.append((phrase[0][0], phrase[-1][1]))
        labels.append("")
        for start, end in phrase:
            parents.append(at)
            spans.append((start, end))
            labels.append(source[start:end].decode("utf-8", "backslashreplace"))
    return Tree(source, tuple(parents), tuple(spans), tuple(labels), runs=True, ended=ended)


def code_tree(source: bytes, ended: bool = True) -> Tree:
    """The syntax tree of one line; a line that Python cannot parse is a single node, all or nothing.

    >>> tree = code_tree(b"    x = f(a, 1)")
    >>> [tree.source[a:b] for a, b in tree.spans]
    [b'    x = f(a, 1)', b'x', b'f(a, 1)', b'f', b'a', b'1']
    """
    line = source.strip()
    start = source.find(line)
    found = parsed(line) if ended and len(line) <= MAX_SOURCE else None
    if found is None or not line:
        return Tree(source, (-1,), ((0, len(source)),), (line.decode("utf-8", "backslashreplace"),), runs=False, ended=ended)
    parents, spans, labels = [], [], []

    def add(node: ast.AST, parent: int) -> None:
        at = len(parents)
        label, below = layout(node, len(line))
        parents.append(parent)
        spans.append((0, len(source)) if parent < 0 else span_of(node, start))
        labels.append(label)
        for child in below:
            add(child, at)

    add(found, -1)
    return Tree(source, tuple(parents), tuple(spans), tuple(labels), runs=False)


def parsed(line: bytes) -> ast.AST | None:
    """The only statement of a line, a compound one with an empty body; None if Python cannot read it so."""
    whole = line + b" pass" if line.startswith(COMPOUND) and line.endswith(b":") else line
    try:
        body = ast.parse(whole).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) != 1 or getattr(body[0], "decorator_list", None):
        return None
    return body[0]


def span_of(node: ast.AST, shift: int) -> tuple[int, int]:
    """Bytes of a node that has a place in its only line."""
    return shift + node.col_offset, shift + (node.end_col_offset or node.col_offset)  # type: ignore[attr-defined]


def layout(node: ast.AST, length: int) -> tuple[str, list[ast.AST]]:
    """Everything of a node but its children, as one text, and the children: those parts that stand somewhere in the line."""
    said, below = [type(node).__name__], []
    for name, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, ast.AST):
                said.append(f"{name}={part!r}")
            elif isinstance(part, ast.expr_context):
                continue
            elif hasattr(part, "col_offset"):
                if part.lineno == 1 and part.col_offset < length:  # type: ignore[attr-defined]
                    said.append(name)
                    below.append(part)
            else:  # an operator, or the arguments of a function: they have no place of their own
                inner, more = layout(part, length)
                said.append(f"{name}({inner})")
                below += more
    below.sort(key=lambda part: part.col_offset)
    return " ".join(said), below


# -- costs -------------------------------------------------------------------------------------------------------------


def costs(tree: Tree, tokens: Sequence[tuple[int, int, float]]) -> list[float]:
    """What keeping each node costs.

    Args:
        tokens: (start, end, -log q) of every drafted token, in bytes of the source; each is paid by the deepest node in which its
            first byte that is no blank stands.
    """
    found = [0.0] * len(tree)
    for start, end, cost in tokens:
        blank = len(tree.source[start:end]) - len(tree.source[start:end].lstrip())
        found[owner(tree, start + blank if start + blank < end else start)] += max(0.0, cost)
    return [min(MOST_COST, cost) for cost in found]


def owner(tree: Tree, at: int) -> int:
    """The deepest node over a byte."""
    node = 0
    while (inside := next((c for c in tree.children[node] if tree.spans[c][0] <= at < tree.spans[c][1]), None)) is not None:
        node = inside
    return node


# -- what a tree with holes admits -------------------------------------------------------------------------------------


def admits(tree: Tree, kept: Sequence[bool], other: Tree) -> bool:
    """Whether the other tree can be made by filling the holes of this one. A tree whose root is cut admits everything."""
    if not kept[0]:
        return True
    if tree.runs:
        return admits_words(list(pattern(tree, kept)), [label for label in other.labels if label], tree.ended)
    return admits_node(tree, kept, 0, other, 0)


def pattern(tree: Tree, kept: Sequence[bool]) -> Iterator[str | None]:
    """Kept words in order, None for a hole."""
    hole = False
    for node in range(1, len(tree)):
        if tree.children[node]:
            continue
        if kept[node]:
            yield tree.labels[node]
        elif not hole:
            yield None
        hole = not kept[node]


def admits_words(wanted: Sequence[str | None], words: Sequence[str], ended: bool) -> bool:
    """Whether the words are those wanted, a None standing for any number of them; with `ended` nothing more follows.

    >>> admits_words(["a", None, "d"], ["a", "b", "c", "d"], True), admits_words(["a", "b"], ["a"], True)
    (True, False)
    """
    open_to = {0}  # how many words may have been used up
    for word in wanted:
        if word is None:
            open_to = set(range(min(open_to), len(words) + 1))
        else:
            open_to = {at + 1 for at in open_to if at < len(words) and words[at] == word}
        if not open_to:
            return False
    return not ended or len(words) in open_to


def admits_node(tree: Tree, kept: Sequence[bool], node: int, other: Tree, at: int) -> bool:
    """Node by node: a kept one must be the same there, with as many children; a hole takes whatever stands in its place."""
    if not kept[node]:
        return True
    below, theirs = tree.children[node], other.children[at]
    same = tree.labels[node] == other.labels[at] and len(below) == len(theirs)
    return same and all(admits_node(tree, kept, a, other, b) for a, b in zip(below, theirs, strict=True))
