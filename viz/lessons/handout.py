"""A lesson as one HTML page to print: its words and questions, and at the foot the answers with pictures of its calls. No script,
no request; the page's own policy lets nothing else through.
"""

import re
from collections.abc import Mapping

from decoding.trace import Trace
from viz.lessons.assets import text
from viz.lessons.costs import COST, calls_html, lanes_html, texts_html
from viz.lessons.draws import COUNT, draw, shares_of, variation
from viz.lessons.lesson import JUDGE, Card, Lesson, Runs, paragraphs, shown_html
from viz.lessons.lossless import ALONE, GUESSED, bars
from viz.replay.replay import digest
from viz.step.small_tree import HEIGHT, small_tree
from viz.tokens import as_html
from viz.verdicts import percent
from viz.words import narrate

WIDTH, COLUMNS = 380, 6  # of a tree: px, and how deep it is drawn for
SEED = 1  # of the draws that are printed
SVG = re.compile(r"^(d|x|y|stroke|stroke-width|stroke-dasharray|fill|font-size|font-family)$")


def handout(lesson: Lesson, number: int, runs: Runs) -> str:
    """The file."""
    body, style = without_inline(page(lesson, number, runs))
    style = text("handout.css") + style
    policy = f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Lesson {number}: {as_html(lesson.title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            f"<body>{body}</body>",
            "</html>",
            "",
        ]
    )


def page(lesson: Lesson, number: int, runs: Runs) -> str:
    """Words and questions above; what gives the answers away at the foot."""
    cards = "".join(card_html(card, i) for i, card in enumerate(lesson.cards, 1))
    drawn: set[tuple[str, int]] = set()
    pictures = "".join(
        f"<div><h3>Card {i}</h3>{made}</div>" for i, card in enumerate(lesson.cards, 1) if (made := picture(card, runs, drawn))
    )
    answers = "".join(
        f"<li>Card {i}: <b>{shown_html(card.question.options[card.question.right])}</b>. {shown_html(card.question.reveal)}</li>"
        for i, card in enumerate(lesson.cards, 1)
        if card.question is not None
    )
    return (
        f"<header><h1>{number}. {as_html(lesson.title)}</h1><p>{as_html(lesson.aim)} All numbers are those of recorded runs.</p>"
        f'</header><main>{cards}</main><footer><h2>What the runs did</h2><ul class="answers">{answers}</ul>'
        f'<div class="pictures">{pictures}</div></footer>'
    )


def card_html(card: Card, number: int) -> str:
    words = "".join(f"<p>{shown_html(part)}</p>" for part in paragraphs(card.words))
    asked = ""
    if card.question is not None:
        options = "".join(f"<li>{shown_html(option)}</li>" for option in card.question.options)
        asked = f'<p class="ask">{shown_html(card.question.ask)}</p><ul class="options">{options}</ul>'
    return f"<section><h2>{number}. {as_html(card.title)}</h2>{words}{asked}</section>"


def picture(card: Card, runs: Runs, drawn: set[tuple[str, int]]) -> str:
    """What the card speaks of, once for each call."""
    if card.picture == "texts":
        return texts_html(runs[ALONE], runs[GUESSED])
    if card.picture.startswith("draws"):
        return draws_html(runs, card.picture.endswith("both"))
    if card.picture == "cost":
        return f'<p class="note">Drawn for c = {percent(COST)}.</p>{lanes_html(runs, COST)}'
    if card.picture.startswith("methods:"):
        return calls_html(runs, card.picture.partition(":")[2])
    place, _ = card.seen(True)
    trace = runs[place.run]
    if "tree" not in card.show and "bars" not in card.show or (place.run, place.step) in drawn or not trace.steps[place.step].nodes:
        return ""
    drawn.add((place.run, place.step))
    return tree_html(trace, place.step) + (die_html(trace, place.step, place.node) if place.phase == JUDGE else "")


def tree_html(trace: Trace, step: int) -> str:
    """The draft tree of a call, with a sentence."""
    drawn = small_tree(trace.steps[step], trace.token_bytes, trace.root(step), WIDTH, COLUMNS)
    elements = "".join(map(element_html, drawn))
    words = as_html(narrate(trace.steps[step], step + 1, trace.token_bytes))
    places = (float(y) for one in drawn for y in re.findall(r"[ML]-?[\d.]+,(-?[\d.]+)", str(one.get("d", ""))))
    height = min(HEIGHT, max(places, default=HEIGHT) + 12)
    drawing = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{words}">{elements}</svg>'
    return f"<figure>{drawing}<figcaption>{words}</figcaption></figure>"


def element_html(one: Mapping[str, object]) -> str:
    """A plain element of a small tree as SVG."""
    attributes = "".join(f' {name}="{as_html(str(value))}"' for name, value in one.items() if SVG.match(name) and value != "")
    return f"<{one['tag']}{attributes}>{as_html(str(one.get('text', '')))}</{one['tag']}>"


def die_html(trace: Trace, step: int, node: int | None) -> str:
    """The die of a judged guess on its rule."""
    nodes = trace.steps[step].nodes
    if node is None or not 0 <= node < len(nodes) or nodes[node].u is None or not nodes[node].q:
        return ""
    one = nodes[node]
    border, u = min(1.0, one.p / (one.q or 1.0)), one.u or 0.0
    return (
        f'<div class="die"><i style="width:{100 * border:.2f}%"></i><b style="left:{100 * u:.2f}%"></b></div>'
        f'<p class="note">0, keep below {border:.2f}, die {u:.2f}, 1</p>'
    )


def draws_html(runs: Runs, both: bool) -> str:
    """Ten thousand draws as a table: p, q, and what came out."""
    found = bars(runs)
    done = draw(found, SEED)
    ends = [("drawn by the rule", shares_of(done.right[-1]))] + [("by the other rule", shares_of(done.wrong[-1]))] * both
    head = "".join(f"<th>{name}</th>" for name in ("", "p", "q", *(name for name, _ in ends)))
    rows = "".join(
        f"<tr><th>{shown_html(name)}</th><td>{percent(found.p[i])}</td><td>{percent(found.q[i])}</td>"
        + "".join(f'<td><i class="bar" style="width:{70 * shares[i]:.2f}px"></i> {percent(shares[i])}</td>' for _, shares in ends)
        + "</tr>"
        for i, name in enumerate(found.names)
    )
    far = ", ".join(f"{name} {percent(variation(shares, found.p))}" for name, shares in ends)
    return f'<table><tr>{head}</tr>{rows}</table><p class="note">{COUNT:,} draws, seed {SEED}. Away from p: {far}.</p>'


def without_inline(page: str) -> tuple[str, str]:
    """The page with classes in place of its style attributes, and their sheet: a policy of hashes lets no attribute through."""
    styles = dict.fromkeys(re.findall(r' style="([^"]*)"', page))
    names = {style: f"s{i}" for i, style in enumerate(styles)}
    page = re.sub(r' class="([^"]*)" style="([^"]*)"', lambda found: f' class="{found[1]} {names[found[2]]}"', page)
    page = re.sub(r' style="([^"]*)"', lambda found: f' class="{names[found[1]]}"', page)
    return page, "".join(f".{name}{{{style}}}" for style, name in names.items())
