"""Key-space navigation: a refused guess among the keys around what the target wrote, and the ranked list by clusters of keys.

Peng, An and Shang, ICLR 2025, https://arxiv.org/abs/2410.02284. The logits are dot products of one query with keys that no context
changes; the middle of a ranked list fills up with neighbours of its winners, whether or not they fit. In-context navigation (ICN)
writes the answers already found into the prompt and takes the next from there, for which a chat model is needed.

Departures: the keys are centred, and the share is held against what chance would give (`lift`), as clusters differ widely in size;
a logit is split along the winner's centred key; the verdict on a drafted token and its chance level are ours. Whether answers of
ICN are right is not judged.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from decoding.lens import BLOCK, Cost, Cursor, Lens, place_of
from decoding.looks.navigation import NEAR, Miss, NavigationLook, Ranked, Round, Sibling, Spot
from decoding.method import param
from decoding.models.cache import TreeCache
from decoding.models.chat import rendered
from decoding.models.family import Family
from decoding.models.keys import Keys, keys_of, no_keys
from decoding.models.target import Target
from decoding.trace import Message, Trace

MAP = 50  # keys around the pick
MISSES = 512
AT_ONCE = 16  # of them, in one turn: each is a product with all keys
PICKS = 64  # of what lies around a key that are kept for later refusals, a number for each key
ANSWERS, LENGTH = 3, 7  # new answers of a round, and tokens of one
TOP_ROW = 10
THINGS = ("fruits", "animals", "countries")
NAVIGATED, PLAIN = "the answers so far", "the bare question"
PROMPT_ROWS = 96  # at most, of the question alone, by which the cost is said beforehand
NO_CHAT = "ICN asks in words, and {} has no chat template: only the keys are shown."


@dataclass(frozen=True)
class Params:
    top: int = param(10, "Winners", "So many of the most probable tokens are the winners.", low=1, high=30)
    listed: int = param(100, "Listed", "So many of the most probable tokens are looked at.", low=40, high=200)
    fold: bool = param(False, "Fold case and space", "A token that differs from a better one in case or blanks only is left out.")
    rounds: int = param(0, "Rounds of ICN", "Ask a chat model for a list, three answers a round; 0 asks nothing.", low=0, high=5)
    things: str = param(THINGS[0], "ICN asks for", "What the list is to be of.", choices=THINGS)
    finish: str = param(
        NAVIGATED, "Answers go on from", "Where an answer is finished from its first token.", choices=(NAVIGATED, PLAIN)
    )


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[NavigationLook | None]:
    """The keys are grouped here, before the first look."""
    return looks(family, trace, cursor, params, keys_of(family.target))


def looks(family: Family, trace: Trace, cursor: Cursor, params: Params, keys: Keys) -> Iterator[NavigationLook | None]:
    """First what the table of keys alone says of the run's refusals, then the list at the place, then ICN."""
    place = place_of(trace, cursor)
    context = place.context[-family.target.context :]
    found = yield from refusals(trace, cursor, keys)
    yield named(family, found)
    cache, query = TreeCache(), None
    for start in range(0, len(context), BLOCK):
        query = read(family.target, cache, context[start : start + BLOCK])
        found = msgspec.structs.replace(found, rows_read=found.rows_read + len(context[start : start + BLOCK]))
        yield named(family, found)
    assert query is not None  # a run has a prompt
    found = with_list(family, found, keys, query, params)
    found = with_map(found, keys)
    yield named(family, found)
    if params.rounds and not family.chats:
        found = msgspec.structs.replace(found, notes=(*found.notes, NO_CHAT.format(family.name)))
        yield named(family, found)
    elif params.rounds:
        yield from (named(family, one) for one in navigated(family, found, keys, params))


def named(family: Family, found: NavigationLook) -> NavigationLook:
    """With the bytes of all its tokens."""
    tokens = {part.token for part in (*found.ranked, *found.spots, *found.siblings, *found.misses)} | {found.pick, *found.explored}
    tokens |= {miss.pick for miss in found.misses} | {token for row in found.rounds for token in row.tokens}
    if found.guess is not None:
        tokens |= {found.guess.token, found.guess.pick}
    return msgspec.structs.replace(found, token_bytes=family.token_bytes(sorted(tokens)))


# -- refused guesses: the table alone ----------------------------------------------------------------------------------


def refusals(trace: Trace, cursor: Cursor, keys: Keys) -> Generator[None, None, NavigationLook]:
    """What needs no pass of the target: the guess at the cursor, its siblings, all refusals of the run; a few in one turn."""
    at = [
        (i, j) for i, step in enumerate(trace.steps) for j, node in enumerate(step.nodes) if node.verdict == "rejected"
    ]  # fmt: skip
    table: dict[int, Around] = {}
    misses = []
    for number, where in enumerate(at[:MISSES]):
        if number and not number % AT_ONCE:
            yield None
        if (miss := missed(trace, Cursor(*where), keys, table)) is not None:
            misses.append(miss)
    notes = (f"The run has {len(at):,} refusals; the first {MISSES:,} were looked at.",) if len(at) > MISSES else ()
    own = missed(trace, cursor, keys, table) if cursor.step >= 0 and cursor.node is not None else None
    return NavigationLook(
        clusters=keys.count,
        guess=own,
        pick=own.pick if own else 0,
        siblings=tuple(Sibling(token, int(keys.cluster[token])) for token in siblings(trace, cursor)),
        misses=tuple(misses),
        notes=notes,
    )


def siblings(trace: Trace, cursor: Cursor) -> list[int]:
    """The tokens drafted at the place of the cursor's node, its own included; none where it is at no node."""
    if not 0 <= cursor.step < len(trace.steps) or cursor.node is None:
        return []
    nodes = trace.steps[cursor.step].nodes
    if not 0 <= cursor.node < len(nodes):
        return []
    return [node.token for node in nodes if node.parent == nodes[cursor.node].parent][:64]


class Around(NamedTuple):
    """What lies around a key."""

    cosines: Tensor  # (vocab,) of all keys with it
    chance: float  # that a token taken blindly, another than this, is near


def missed(trace: Trace, cursor: Cursor, keys: Keys, table: dict[int, Around]) -> Miss | None:
    """The drafted token at a node against what was written there; None where nothing else was."""
    place = place_of(trace, cursor)
    if place.token is None or place.rival is None:
        return None
    return between(cursor, place.token, place.rival, keys, table)


def between(cursor: Cursor, token: int, pick: int, keys: Keys, table: dict[int, Around]) -> Miss:
    """How close a token's key lies to that of the pick."""
    if pick not in table:
        if len(table) >= PICKS:
            del table[next(iter(table))]
        table[pick] = around(keys, pick)
    cosines, chance = table[pick]
    here = cosines[token]
    others = cosines.clone()
    others[pick] = -2
    rank = 0 if token == pick else 1 + int((others > here).sum())
    same = bool(keys.cluster[token] == keys.cluster[pick]) and bool(keys.known[token])
    node = -1 if cursor.node is None else cursor.node
    return Miss(cursor.step, node, token, pick, max(-1.0, float(here)), rank, same, chance)


def around(keys: Keys, pick: int) -> Around:
    cosines = keys.cosines(pick)
    near = keys.cluster == keys.cluster[pick]
    others = cosines.clone()
    others[pick] = -2
    near[others.topk(min(NEAR, len(others) - 1)).indices] = True
    near &= keys.known
    near[pick] = False
    return Around(cosines, float(near.sum()) / max(1, int(keys.known.sum()) - 1))


# -- the list at the place ---------------------------------------------------------------------------------------------


def read(target: Target, cache: TreeCache, tokens: Sequence[int]) -> Tensor:
    """(d,) the query behind the last of these tokens, which are committed to the cache."""
    _, hidden = target.extend_with_hidden(cache, tokens, (target.last_hidden,))
    return hidden[target.last_hidden][-1]


def with_list(family: Family, found: NavigationLook, keys: Keys, query: Tensor, params: Params) -> NavigationLook:
    """The most probable tokens at the place, by cluster, each logit split along the winner's key."""
    logits = family.target.score(query[None])[0]
    order = listing(family, logits, params)
    inherited, own = split(keys, query, order[0])
    ranks = own.masked_fill(~keys.known, -torch.inf).argsort(descending=True).argsort() + 1
    p = logits.double().softmax(-1)
    clusters = keys.cluster
    share, base = shares(clusters, keys.known, order, params.top)
    ranked = tuple(
        Ranked(t, float(p[t]), int(clusters[t]), float(inherited[t]), float(own[t]), int(ranks[t])) for t in order
    )  # fmt: skip
    middle = ranked[params.top :]
    driven = sum(row.inherited > row.own and row.own_rank > params.listed for row in middle) / max(1, len(middle))
    pick = found.guess.pick if found.guess else order[0]
    return msgspec.structs.replace(
        found, ranked=ranked, top=params.top, share=share, base=base, key_driven=driven, pick=pick
    )  # fmt: skip


def listing(family: Family, logits: Tensor, params: Params) -> list[int]:
    """The most probable tokens, best first; folded, only the best of those that read alike."""
    count = min(len(logits) - len(family.target.unused), params.listed * (4 if params.fold else 1))
    order = logits.topk(count).indices.tolist()
    if params.fold:
        said = family.token_bytes(order)
        order = list({said[token].strip().lower(): token for token in reversed(order)}.values())[::-1]
    return order[: params.listed]


def shares(clusters: Tensor, known: Tensor, order: Sequence[int], top: int) -> tuple[float, float]:
    """Of the tokens behind the winners, the share whose cluster is one of the winners'; and that of all tokens but the winners.

    Args:
        clusters: (vocab,) of every token.
        known: (vocab,) ids that a token has.
        order: tokens, best first.
    """
    winners = torch.tensor(sorted({int(clusters[token]) for token in order[:top]}), device=clusters.device)
    inside = torch.isin(clusters, winners) & known
    middle = order[top:]
    share = float(inside[torch.tensor(middle, device=clusters.device)].float().mean()) if middle else 0.0
    everywhere = int(inside.sum()) - sum(bool(inside[token]) for token in order[:top])
    return share, everywhere / max(1, int(known.sum()) - top)


def split(keys: Keys, query: Tensor, winner: int) -> tuple[Tensor, Tensor]:
    """(vocab,) the part of every centred logit that lies along the winner's key, and the rest."""
    key = keys.centred([winner])[0]
    along = keys.dots(key) / (key @ key).clamp(min=1e-12)
    inherited = along * (key @ query.float())
    return inherited, keys.dots(query) - inherited


def with_map(found: NavigationLook, keys: Keys) -> NavigationLook:
    """The nearest keys around the pick in the plane of their two widest directions; the guess is put in afterwards, so that one
    pick has one map."""
    cosines = keys.cosines(found.pick)
    near = [t for t in cosines.topk(min(MAP + 1, int(keys.known.sum()))).indices.tolist() if t != found.pick][:MAP]
    extra = [found.guess.token] if found.guess and found.guess.token not in near else []
    tokens = [found.pick, *near, *extra]
    rows = torch.nn.functional.normalize(keys.centred(tokens), dim=1).double().cpu()
    centre = rows[: 1 + len(near)].mean(0)
    _, _, directions = torch.linalg.svd(rows[: 1 + len(near)] - centre, full_matrices=False)
    plane = directions[:2]
    signs = torch.tensor([float(d[d.abs().argmax()].sign()) for d in plane], dtype=torch.double)
    spots = ((rows - centre) @ plane.T) * signs
    return msgspec.structs.replace(
        found,
        spots=tuple(
            Spot(t, min(1.0, float(cosines[t])), float(xy[0]), float(xy[1]), int(keys.cluster[t]))
            for t, xy in zip(tokens, spots, strict=True)
        ),
    )


# -- in-context navigation ---------------------------------------------------------------------------------------------


def question(family: Family, things: str) -> str:
    """The chat up to the answer."""
    asked = Message("user", f"Give me a list of different {things}, one per line, each in quotes.")
    return rendered(family.tokenizer, (asked,), {}, family.name)


def prompt_of(family: Family, asked: str, found: Sequence[str]) -> list[int]:
    """Tokens of the question and a numbered list of what was found, up to the quotation mark that the next answer stands behind."""
    lines = "".join(f'{i}. "{answer}"\n' for i, answer in enumerate(found, 1))
    return family.tokenizer(f'{asked}{lines}{len(found) + 1}. "', add_special_tokens=False)["input_ids"]


def navigated(family: Family, found: NavigationLook, keys: Keys, params: Params) -> Iterator[NavigationLook]:
    """Answers in the order of the first row, then round by round with those found written into the prompt; a look an answer."""
    asked = question(family, params.things)
    bare = Text(family, prompt_of(family, asked, ()))
    found = msgspec.structs.replace(found, things=params.things)
    order = bare.logits.topk(ANSWERS * params.rounds).indices.tolist()
    for token in order:
        said = bare.answer(token)
        found = msgspec.structs.replace(found, plain=(*found.plain, said), rows_read=found.rows_read + bare.spent())
        yield found
    answers: list[str] = []
    explored: list[int] = []
    for _ in range(params.rounds):
        here = Text(family, prompt_of(family, asked, answers))
        row = round_of(here, keys, explored, len(answers))
        kept = found.rounds
        for token in fresh(here.logits, explored):
            source = here if params.finish == NAVIGATED else bare
            said = source.answer(token)
            explored.append(token)
            answers.append(said)
            row = msgspec.structs.replace(row, answers=(*row.answers, said))
            spent = here.spent() + bare.spent()
            found = msgspec.structs.replace(
                found, rounds=(*kept, row), explored=tuple(explored), rows_read=found.rows_read + spent
            )  # fmt: skip
            yield found


def fresh(logits: Tensor, explored: Sequence[int]) -> list[int]:
    """The best first tokens that no answer began with."""
    best = logits.topk(min(len(logits), ANSWERS + len(explored))).indices.tolist()
    return [token for token in best if token not in set(explored)][:ANSWERS]


class Text:
    """A prompt that was read, from which answers are finished one after the other."""

    def __init__(self, family: Family, tokens: Sequence[int]) -> None:
        self.family, self.cache, self.length = family, TreeCache(), len(tokens)
        self.query = read(family.target, self.cache, tokens)
        self.logits = family.target.score(self.query[None])[0]
        self.rows = len(tokens)

    def answer(self, first: int) -> str:
        """Greedy from a first token up to the next quotation mark or line; the prompt stays as it was."""
        target, token, said = self.family.target, first, []
        while len(said) < LENGTH and token not in target.ends:
            said.append(token)
            if any(mark in self.family.text(said) for mark in '"\n') or len(said) == LENGTH:
                break
            token = int(target.extend(self.cache, [token])[0].argmax())
            self.rows += 1
        self.cache.cut(self.length)
        return self.family.text(said).split('"')[0].split("\n")[0].strip()

    def spent(self) -> int:
        """Rows read since this was asked."""
        rows, self.rows = self.rows, 0
        return rows


def round_of(here: Text, keys: Keys, explored: Sequence[int], found: int) -> Round:
    """The row behind a prompt, before anything is taken from it."""
    logs = here.logits.double().log_softmax(-1)
    entropy = float(-(logs.exp() * logs.masked_fill(logs.isinf(), 0)).sum())
    best = logs.topk(TOP_ROW).indices.tolist()
    along = float((keys.centred(explored) @ here.query.float()).mean()) if explored else 0.0
    return Round(found, tuple(best), tuple(float(logs[t].exp()) for t in best), min(entropy, log(len(logs))), along, ())


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    asked, answers = PROMPT_ROWS, ANSWERS * params.rounds
    lines = sum(asked + (LENGTH + 8) * ANSWERS * done for done in range(params.rounds))
    rows = asked + lines + 2 * answers * LENGTH if params.rounds else 0
    words = "A chat model also reads the lists of ICN; others leave that out." if params.rounds else ""
    return Cost(len(place_of(trace, cursor).context) + rows, words)


def lacks(family: Family) -> str:
    return no_keys(family.target)


LENS = Lens(
    key="navigation",
    title="Key-space navigation",
    paper="https://arxiv.org/abs/2410.02284",
    authors="Peng, An, Shang; ICLR 2025",
    year=2025,
    scope="position",
    asks="Was the refused guess a near miss, or a different idea?",
    idea=(
        "A language model scores every token by one dot product with a key that no context changes, so tokens with neighbouring "
        "keys rise and fall together. A refused guess that lies beside what the target wrote is a near miss: a variant, a sibling, "
        "another form; one that lies far away is a different idea."
    ),
    reading=(
        "The map has what the target wrote in the middle of its 50 nearest keys; the cross is the refused guess. In the list, a "
        "run of one letter behind the winners are neighbours that came along with a winner."
    ),
    checks="The two parts of a logit, along the winner's key and the rest, sum to the logit itself (less the mean key's).",
    ours=(
        "Centred keys, lift over chance, the split of a logit, and the verdict on a guess with its chance level are ours. Of "
        "ICN only the order of answers is shown, not whether they are right."
    ),
    params=Params,
    look=look,
    cost=cost,
    lacks=lacks,
)
