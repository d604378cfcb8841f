"""The server that `deploy/serve.py` makes, in a real browser: every page is drawn whole under its content security policy."""

import json
import re
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from decoding.runs.visitors import COOKIE, new_key
from tests.browser.on_step import go_on, next_button, shows
from tests.browser.test_keep import keep_as
from tests.conftest import PATIENCE, button, serving_app, settled, until

LINK = "/Step?v=1&prompt=Tom+had+a+red&method=multi_candidate&p.shape=2-1&temperature=1&seed=7&tokens=24"
TWO = "/Compare?v=1&example=repeat&temperature=0&tokens=12&c1=plain&c2=prompt_lookup"
ELSEWHERE = "http://127.0.0.2:9"  # nobody listens there, and nobody is asked: the browser refuses before

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    nothing = str(tmp_path_factory.mktemp("nothing-fetched"))
    home = tmp_path_factory.mktemp("home")
    with serving_app(home, script="deploy/serve.py", DRAFTSCOPE_CACHE=nothing, DRAFTSCOPE_MODE="public") as address:
        yield address


@pytest.fixture
def complaints(page) -> list[str]:
    """What the browser's console says of the policy, and what goes wrong in the page's own scripts."""
    found: list[str] = []
    page.on("console", lambda said: found.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def ready(site: str) -> tuple[int, dict]:
    try:
        with urlopen(f"{site}/ready", timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.parametrize("path", ["/", "/Step", "/_stcore/health", "/ready", "/favicon.png"])
def test_every_answer_has_the_headers(site, path):
    with urlopen(site + path, timeout=PATIENCE) as answer:
        policy = answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY" and answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy and "*" not in policy


def test_a_picture_from_elsewhere_is_refused_and_noticed(page, site, complaints):
    """Or the tests below could not fail."""
    page.goto(site)
    page.evaluate(f"new Image().src = '{ELSEWHERE}/picture.png'")
    until(page, lambda: any("img-src" in text for text in complaints), "a picture from elsewhere is no complaint")


def test_home(page, site, complaints):
    page.goto(site)
    page.locator(".lanes .lane .counted").nth(1).wait_for()
    page.get_by_text("What target, drafter").click()
    page.locator("dl.ds-words dd").first.wait_for()
    settled(page)
    assert not complaints


def test_step(page, site, complaints):
    page.goto(site + LINK)
    for number in (1, 2):
        expect(next_button(page)).to_contain_text("Start" if number == 1 else "Step")
        go_on(page)
        shows(page, number)
    page.locator("body").press("j")  # by a component of the page
    shows(page, 1)
    page.locator("body").press("3")
    page.get_by_role("tab", name="Numbers").click()
    page.get_by_text("The tree as a table").click()
    page.get_by_test_id("stDataFrame").locator("canvas").first.wait_for()
    expect(page.locator(".why .dist")).not_to_have_count(0)
    settled(page)
    assert ready(site) == (200, {"ready": True})  # the worker has begun
    assert not complaints


def test_compare(page, site, complaints):
    page.goto(site + TWO)
    button(page, "Step").click()
    page.locator(".ds-say", has_text="After 1 target call").first.wait_for()
    expect(page.locator("svg.ds-small")).to_have_count(2)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    settled(page)
    assert not complaints


def test_drafter(page, site, complaints):
    page.goto(f"{site}/Drafter")
    page.get_by_text("Sampling and length").click()
    for label, value in (("Token limit", "8"), ("At most so many prompts", "2")):
        page.get_by_role("spinbutton", name=label).fill(value)
        page.get_by_role("spinbutton", name=label).press("Enter")
        settled(page)
    button(page, "Run").click()
    page.locator(".stMain").get_by_text(re.compile("all runs are there")).first.wait_for()
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    page.get_by_role("tab", name="Rejections").click()
    settled(page)
    assert not complaints


def test_methods(page, site, complaints):
    page.goto(f"{site}/Methods")
    page.get_by_role("heading", name="EAGLE", exact=True).wait_for()
    page.locator('svg[role="img"]').first.wait_for()
    settled(page)
    assert not complaints


def test_traces(page, site, complaints):
    keep_as(page, site, "under the policy")
    page.goto(f"{site}/Traces")
    page.locator(".ds-verdict", has_text="under the policy").wait_for()
    settled(page)  # a button that is drawn anew while it is pressed brings nothing
    with page.expect_download() as arriving:
        page.get_by_role("button", name=re.compile(r"\bJSON$")).click()
    assert arriving.value.path().stat().st_size
    page.get_by_role("button", name="Open on the Step page").click()
    page.wait_for_url(re.compile("/Step"))
    page.locator(".stp .box").first.wait_for()
    settled(page)
    assert not complaints


def test_a_message_that_no_page_sends_ends_its_connection(site):
    with (
        connect(f"ws{site.removeprefix('http')}/_stcore/stream", max_size=None) as socket,
        pytest.raises(ConnectionClosed) as ended,
    ):
        socket.send(b"x" * 2_200_000)
        while True:
            socket.recv(PATIENCE)
    assert ended.value.rcvd is not None and ended.value.rcvd.code == 1009


def test_a_session_is_taken_up_by_its_visitor_alone(site):
    """Its id stands in the addresses of uploads, and so in the logs of proxies."""
    mine, other = new_key(), new_key()
    with tab(site, mine) as first:
        known = session(first)
        for key in (other, ""):
            with tab(site, key, known) as stranger:
                assert session(stranger) != known
    for key, same in ((other, False), ("", False), (mine, True)):
        with tab(site, key, known) as again:
            assert (session(again) == known) is same


def test_visitors_without_a_key_are_not_one_another(site):
    """As in a page of another site, where browsers send no cookie."""
    with tab(site, "") as first:
        known = session(first)
        with tab(site, "", known) as stranger:
            assert session(stranger) != known
    with tab(site, "", known) as stranger:
        assert session(stranger) != known


def tab(site: str, key: str, known: str = "") -> ClientConnection:
    """A connection of whoever has the key, which asks for a session by its id."""
    asked = [Subprotocol(name) for name in ("streamlit", "x", known) if name]
    cookie = {"Cookie": f"{COOKIE}={key}"} if key else {}
    return connect(f"ws{site.removeprefix('http')}/_stcore/stream", subprotocols=asked, additional_headers=cookie, max_size=None)


def session(tab: ClientConnection) -> str:
    """The id of the session that a page gets there."""
    asked = BackMsg()
    asked.rerun_script.SetInParent()
    tab.send(asked.SerializeToString())
    while (got := ForwardMsg.FromString(tab.recv(PATIENCE, decode=False))).WhichOneof("type") != "new_session":
        pass
    return got.new_session.initialize.session_id
