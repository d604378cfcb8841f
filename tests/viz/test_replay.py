"""The replay file: what is in it, that no token gets out of it, and that a browser replays it with no network."""

import json
import re
from html.parser import HTMLParser

import msgspec
import pytest
from playwright.sync_api import expect

from tests.conftest import until
from tests.local_server import serving
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, grown, node, row, small_tree, step_of, trace_of
from viz.replay.replay import as_json, digest, replay_html, running, tally_data
from viz.runs.tally import tally

EVIL = {
    200: b"</script><script>alert(1)</script>",
    201: b"<img src=x onerror=alert(1)>",
    202: b"<!--<script>",
    203: "\u2028\u2029".encode(),
    204: b"</style><svg onload=alert(1)>",
}


def recorded(step):
    """The step with a distribution wherever something hangs."""
    parents = {item.parent for item in step.nodes} | {step.end_row - 1}
    tokens = tuple({item.token for item in step.nodes} | {0, 1, 2})
    p = tuple(1 / len(tokens) for _ in tokens)
    rows = tuple(row(tokens, p, q=p[::-1]) if i - 1 in parents else None for i in range(len(step.nodes) + 1))
    return msgspec.structs.replace(step, rows=rows)


def evil():
    """Every hostile token as prompt, node, source, score and committed token."""
    bad = EVIL | HOSTILE
    steps = [
        recorded(step_of([node(t, -1, "rejected", source="<b>x</b>", scores={"<i>": 1.0})], (), "correction", final_token=t))
        for t in bad
    ]
    return trace_of(*steps, prompt_tokens=tuple(bad), token_bytes=bad)


TRACE = trace_of(recorded(chain(3)), recorded(small_tree()), recorded(step_of()), recorded(chain(5)))


class Page(HTMLParser):
    """Elements as a browser would see them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self._in = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
            self._in = True

    def handle_endtag(self, tag):
        self._in = self._in and tag != "script"

    def handle_data(self, text):
        if self._in:
            self.scripts[-1] += text


def embedded(html):
    return json.loads(Page(html).scripts[0])


def test_one_file_with_two_scripts_and_nothing_to_fetch():
    page = Page(replay_html(TRACE, "A run"))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [attrs for _, attrs in page.tags if {"src", "href", "style", "onclick", "onload"} & set(attrs)]
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "form", "a"}


def test_the_policy_allows_exactly_the_style_and_the_script():
    html = replay_html(TRACE)
    policy = next(attrs["content"] for _, attrs in Page(html).tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    style = re.search("<style>(.*?)</style>", html, re.S)[1]
    assert digest(style) in policy and digest(Page(html).scripts[1]) in policy


def test_script_builds_no_markup_from_text():
    script = Page(replay_html(TRACE)).scripts[1]
    for bad in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttpRequest",
        "Function(",
    ):
        assert bad not in script


@pytest.mark.parametrize("text", [*(piece.decode("utf-8", "replace") for piece in EVIL.values()), "&lt;", "]]>", "\u0000"])
def test_json_cannot_be_broken_out_of(text):
    coded = as_json({"a": text})
    assert not set(coded) & set("<>&\u2028\u2029") and json.loads(coded) == {"a": text}


def test_hostile_tokens_leave_the_page_as_it_is():
    html = replay_html(evil(), "</title><script>alert(1)</script>")
    page = Page(html)
    assert len(page.scripts) == 2 and "<script>alert" not in html and "</style><svg" not in html
    shape = [(tag, set(attrs)) for tag, attrs in page.tags]
    assert shape == [(tag, set(attrs)) for tag, attrs in Page(replay_html(TRACE)).tags]


def test_tally_runs_along():
    cells = [{name: value for name, value, _ in tally_data(total)} for total in running(TRACE.steps)]
    assert [cell["tokens"] for cell in cells] == ["4", "7", "8", "14"]
    whole = tally(TRACE.steps)
    assert cells[-1]["tau"] == f"{whole.tau:.2f}" and cells[-1]["alpha"] == f"{whole.alpha:.2f}"


def test_size_of_a_long_run_with_trees():
    """64 steps with 40 nodes each, all positions recorded: a file one can mail."""
    step = recorded(grown((4, 12, 14, 10), (0, 4, 16), (30,)))
    size = len(replay_html(trace_of(*[step] * 64)).encode())
    print(f"\n64 steps of 40 nodes: {size / 1e3:.0f} kB")
    assert size < 2_000_000


# --- In a browser


@pytest.fixture
def opened(browser, tmp_path):
    """opened(trace) -> a page with the replay from disk; whatever it asks for or complains about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    page = context.new_page()
    trouble = []
    page.on("request", lambda request: request.url.startswith("file://") or trouble.append(request.url))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))

    def open_(trace, title="A run"):
        path = tmp_path / "replay.html"
        path.write_text(replay_html(trace, title), encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_
    context.close()
    assert not trouble


def counts(page, words: str) -> None:
    expect(page.locator(".stp .count")).to_have_text(words)


@pytest.mark.browser
def test_the_tally_runs_along_with_the_stepper(opened):
    page = opened(TRACE)
    counts(page, "call 1 of 4")
    expect(page.locator("#tally b").first).to_have_text("4")
    page.keyboard.press("End")
    counts(page, "call 4 of 4")
    expect(page.locator("#tally b").first).to_have_text("14")
    expect(page.locator("#facts")).to_contain_text("speculative sampling · toy")


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_theme_and_fits_a_phone(opened, scheme):
    page = opened(TRACE)
    page.emulate_media(color_scheme=scheme)
    background = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    expect(page.locator("body")).to_have_css("background-color", background)
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


@pytest.mark.browser
def test_hostile_tokens_stay_text(opened):
    """Nothing runs, nothing is fetched (see `opened`), and the token can be read."""
    trace = evil()
    page = opened(trace, "</title><script>alert(1)</script>")
    expect(page.locator("h1")).to_have_text("</title><script>alert(1)</script>")
    expect(page.locator(".why h3")).to_have_text("Why was </script><script>alert(1)</script> refused?")
    page.locator(".twin summary").click()
    page.locator(".numbers summary").click()
    for i in range(len(trace.steps)):
        counts(page, f"call {i + 1} of {len(trace.steps)}")
        page.locator(".box").last.hover()
        for key in ("1", "2", "3", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
    assert page.locator("script").count() == 2 and page.locator("img, .stp a, .text b, .why i b, .stp svg a").count() == 0


@pytest.mark.browser
def test_no_steps_and_no_rows_have_a_sentence(opened):
    page = opened(trace_of())
    expect(page.locator(".stp .line")).to_have_text("This run has no steps: there is nothing to replay.")
    expect(page.locator(".stp nav button:enabled")).to_have_count(0)
    page = opened(trace_of(step_of(), chain(3), token_bytes=TOKEN_BYTES))
    expect(page.locator(".why")).to_contain_text("No distribution was recorded here.")
    page.locator(".twin summary").click()
    expect(page.locator(".twin")).to_contain_text("Nothing was drafted in this step.")


INJECTED = """(address) => {
  const tags = [["img", "src"], ["script", "src"], ["iframe", "src"], ["video", "src"], ["audio", "src"], ["embed", "src"],
                ["object", "data"], ["link", "href"], ["source", "srcset"], ["track", "src"]];
  for (const [tag, name] of tags) {
    const element = document.createElement(tag);
    if (tag === "link") element.rel = "stylesheet";
    element.setAttribute(name, `${address}/${tag}`);
    document.body.append(element);
  }
  document.body.insertAdjacentHTML("beforeend", `<p style="background: url(${address}/style)"><style>
    @import url(${address}/import); @font-face { font-family: f; src: url(${address}/font); } p { font-family: f; } </style>x</p>
    <svg><image href="${address}/svg"></image></svg><img srcset="${address}/srcset 1x">`);
  const asked = [() => fetch(`${address}/fetch`, { mode: "no-cors" }), () => navigator.sendBeacon(`${address}/beacon`, "x"),
                 () => new WebSocket(`${address.replace("http", "ws")}/socket`), () => new EventSource(`${address}/events`),
                 () => new Worker(`${address}/worker`), () => import(`${address}/module`)];
  for (const ask of asked) { try { Promise.resolve(ask()).catch(() => 0); } catch { /* refused */ } }
}"""


@pytest.fixture
def outside(tmp_path):
    """A server on this machine that writes down what it is asked."""
    with serving(tmp_path) as server:
        yield server


@pytest.mark.browser
def test_what_is_put_into_the_page_asks_nobody(browser, tmp_path, outside):
    """Were there a hole: the policy lets no picture, script, style, frame, font or request through; without it they come."""
    address, asked = outside.address, outside.requests
    whole = replay_html(TRACE)
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", whole)
    assert without != whole
    found = {}
    for name, html in (("with", whole), ("without", without)):
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        page = browser.new_page()
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.evaluate(INJECTED, address)
        if name == "without":
            until(
                page, lambda: {"/img", "/script", "/iframe", "/fetch"} <= set(asked), "nothing is asked for without a policy either"
            )
        else:
            expect(page.locator(".stp .count")).to_have_text(re.compile("call 1"))
            page.wait_for_timeout(1000)
        found[name] = set(asked)
        page.close()
    assert found["with"] == set()
