"""A public server in real browsers: whose kept runs are whose, my link, and a stranger who clears the caches."""

import pytest
from playwright.sync_api import expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from pages.parts.shared.visitor import NAME
from tests.browser.on_step import call, go_on, next_button, prompt, shows, text
from tests.browser.test_keep import keep_as
from tests.conftest import PATIENCE, button, serving_app, settled, until
from tests.local_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A public server."""
    nothing = str(tmp_path_factory.mktemp("nothing-fetched"))
    known = {"DRAFTSCOPE_CACHE": nothing, "DRAFTSCOPE_MODE": "public"}
    with serving_app(tmp_path_factory.mktemp("home"), script="deploy/serve.py", **known) as address:
        yield address


@pytest.fixture
def elsewhere(tmp_path, site):
    """A page of another site, with a link to the server."""
    (tmp_path / "index.html").write_text(f'<a href="{site}/Traces">a demo</a>')
    with serving(tmp_path) as server:
        yield server.address.replace("127.0.0.1", "localhost")


CLEAR = """([address, message]) => new Promise((done, failed) => {
  const socket = new WebSocket(address, ["streamlit"]);
  socket.onerror = failed;
  socket.onopen = () => { socket.send(new Uint8Array(message)); setTimeout(() => { socket.close(); done(true); }, 200); };
})"""


def visit(browser, address: str):
    """Another browser, with nothing in it."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(address)
    return page


def key_of(page) -> str | None:
    return next((cookie["value"] for cookie in page.context.cookies() if cookie["name"] == NAME), None)


def test_kept_runs_stay_with_their_browser_and_go_along_with_my_link(site, browser):
    alice, bob = visit(browser, f"{site}/Step"), visit(browser, f"{site}/Traces")
    until(alice, lambda: key_of(alice) and key_of(bob), "the browser keeps no key")
    assert key_of(alice) != key_of(bob)
    keep_as(alice, site, "run of alice")
    tab = alice.context.new_page()
    tab.goto(f"{site}/Traces")
    tab.locator(".ds-verdict", has_text="run of alice").wait_for()
    bob.reload()
    bob.get_by_text("Nothing is kept yet").wait_for()
    tab.get_by_text("My link, download all, delete all").click()
    link = tab.locator("code", has_text="visitor=").inner_text().strip()
    bob.goto(link)
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    assert "visitor=" not in bob.url
    bob.goto(f"{site}/Traces")
    bob.locator(".ds-verdict", has_text="run of alice").wait_for()
    for page in (alice, bob):
        page.context.close()


def test_the_key_is_found_again_without_a_cookie(site, browser):
    """As where a browser refuses the server's, but lets the page keep something."""

    page, asked = browser.new_context().new_page(), []

    def refused(route) -> None:
        if not asked:  # the page is there with its cookie, its websocket comes later
            asked.append(route)
            page.context.clear_cookies()
        route.continue_()

    page.route("**/static/**", refused)
    page.goto(f"{site}/Traces")
    until(page, lambda: page.evaluate(f"localStorage.getItem('{NAME}')"), "the browser keeps no key")
    key = page.evaluate(f"localStorage.getItem('{NAME}')")
    page.context.clear_cookies()
    page.reload()
    page.get_by_text("My link, download all, delete all").click()
    until(page, lambda: key in page.locator("code", has_text="visitor=").inner_text(), "another key is used")
    page.context.close()


def test_a_reload_goes_on_with_the_run(site, browser):
    page = visit(browser, f"{site}/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=64&seed=3&ignore_end=True")
    next_button(page).wait_for()
    settled(page)
    prompt(page).fill("Tom had a red")
    prompt(page).press("Control+Enter")
    settled(page)
    page.keyboard.press("Escape")
    go_on(page)
    shows(page, 1)
    go_on(page)
    shows(page, 2)
    told = text(page)
    page.reload()
    shows(page, 2)
    until(page, lambda: text(page) == told, "the run is gone")
    expect(prompt(page)).to_have_value("Tom had a red")
    other = page.context.new_page()
    other.goto(f"{site}/Step")
    next_button(other).wait_for()
    settled(other)
    assert text(other) != told  # another tab of the same visitor begins anew
    page.context.close()


def test_a_stranger_who_clears_the_caches_stops_no_run(site, browser):
    page = visit(browser, f"{site}/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=256&seed=3&ignore_end=True")
    button(page, "Run to end").wait_for()
    settled(page)
    button(page, "Run to end").click()
    stranger = visit(browser, site)
    message = list(BackMsg(clear_cache=True).SerializeToString())
    for _ in range(5):
        stranger.evaluate(CLEAR, [f"{site.replace('http', 'ws')}/_stcore/stream", message])
        page.wait_for_timeout(300)
    until(page, lambda: call(page) >= 100, "the run was stopped")
    for one in (page, stranger):
        one.context.close()


# -- a key that no script can read ------------------------------------------------------------------------------------


def hidden(page) -> bool:
    """Whether no script of the page finds the key."""
    return NAME not in page.evaluate("document.cookie") and page.evaluate(f"localStorage.getItem('{NAME}')") is None


def said_key(page) -> str:
    """The key in "my link", as the server knows it."""
    page.get_by_text("My link, download all, delete all").click()
    return page.locator("code", has_text="visitor=").inner_text().strip().split("visitor=")[1]


def knows(page) -> None:
    """Waits until the page's own script has run, which may be after the page is drawn."""
    until(page, lambda: page.evaluate(f"sessionStorage.getItem('{NAME}')"), "the page's script does not run")


def test_no_script_reads_the_key_and_it_stays(site, browser):
    page = visit(browser, f"{site}/Traces")
    key = key_of(page)
    assert key and next(c for c in page.context.cookies() if c["name"] == NAME)["httpOnly"]
    until(page, lambda: said_key(page) == key, "the pages have another key than the browser")
    settled(page)
    assert hidden(page)
    page.reload()
    page.get_by_text("My link, download all, delete all").wait_for()
    assert key_of(page) == key and hidden(page)
    page.context.close()


def test_my_link_changes_the_key_that_no_script_reads(site, browser):
    alice, bob = visit(browser, f"{site}/Traces"), visit(browser, f"{site}/Traces")
    assert key_of(alice) != key_of(bob)
    bob.goto(f"{site}/Traces?visitor={key_of(alice)}")
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    assert next(c for c in bob.context.cookies() if c["name"] == NAME)["httpOnly"] and hidden(bob)
    bob.goto(f"{site}/Traces")
    until(bob, lambda: said_key(bob) == key_of(alice), "the next visit is another's")
    for page in (alice, bob):
        page.context.close()


def test_all_tabs_of_a_browser_go_over_to_another_key(site, browser):
    """One that stayed behind kept runs under a key that no browser had any more. What is there already is told before."""
    alice, bob = visit(browser, f"{site}/Traces"), visit(browser, f"{site}/Traces")
    keep_as(bob, site, "run of bob")
    second, old = bob.context.new_page(), key_of(bob)
    second.goto(f"{site}/Traces")
    second.locator(".ds-verdict", has_text="run of bob").wait_for()
    bob.goto(f"{site}/Traces?visitor={key_of(alice)}")
    bob.get_by_text("This browser has kept 1 of its own so far").wait_for()
    bob.get_by_text("Show the link").click()
    until(bob, lambda: old in bob.locator("code", has_text="visitor=").first.inner_text(), "its own link is not told")
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    second.get_by_text("Nothing is kept yet").wait_for()
    keep_as(second, site, "kept in the second tab")
    alice.reload()
    alice.locator(".ds-verdict", has_text="kept in the second tab").wait_for()
    bob.get_by_text("This browser had kept 1 run of its own").wait_for()
    bob.get_by_text("Show the link").click()
    until(bob, lambda: old in bob.locator("code", has_text="visitor=").first.inner_text(), "the way back is not told")
    button(bob, "I have it").click()
    bob.get_by_text("This browser had kept").wait_for(state="detached")
    for page in (alice, bob):
        page.context.close()


def test_a_tab_that_comes_back_without_its_cookie_has_the_same_key(site, browser):
    """It took a new one without a word, or over https whatever another host of the domain had put there. A page at rest notices
    when it is used again: Streamlit runs it anew only if the connection broke while it ran."""
    page, sockets = browser.new_context().new_page(), []
    page.set_default_timeout(PATIENCE * 1000)
    page.route_web_socket("**/stream", lambda socket: (sockets.append(socket), socket.connect_to_server()))
    page.goto(f"{site}/Traces")
    key = said_key(page)
    knows(page)
    page.context.clear_cookies()
    sockets[-1].close()
    until(page, lambda: len(sockets) > 1, "the connection does not come again")

    def is_back() -> bool:
        page.keyboard.press("Shift")
        return key_of(page) == key

    until(page, is_back, "the key is another one")
    page.reload()
    assert said_key(page) == key
    page.context.close()


def test_a_tab_that_comes_back_with_another_key_says_what_it_had(site, browser):
    """Its own key was the last there was of it."""
    page, sockets = browser.new_context().new_page(), []
    page.set_default_timeout(PATIENCE * 1000)
    page.route_web_socket("**/stream", lambda socket: (sockets.append(socket), socket.connect_to_server()))
    keep_as(page, site, "kept before")
    key = key_of(page)
    knows(page)
    page.context.clear_cookies()
    second = page.context.new_page()
    second.goto(f"{site}/Traces")
    until(page, lambda: key_of(page) not in (None, key), "the browser has no other key")
    second.close()
    sockets[-1].close()
    page.get_by_text("This browser had kept 1 run of its own").wait_for()
    button(page, "Go back to them").click()
    until(page, lambda: key_of(page) == key, "the key was not given back")
    page.context.close()


def test_nothing_is_taken_before_somebody_has_looked(site, browser):
    """The second click of a double-click on a window that goes away hits the page below."""
    alice, bob = visit(browser, f"{site}/Traces"), visit(browser, f"{site}/Traces")
    bob.goto(f"{site}/Traces?visitor={key_of(alice)}")
    bob.get_by_text("This link carries the kept runs").wait_for()
    until(bob, lambda: bob.evaluate("document.documentElement.matches('.ds-looked')"), "the offer cannot be taken")
    of_the_button = "getComputedStyle(document.querySelector('.st-key-visitor_take button')).visibility"
    assert bob.evaluate(f"{of_the_button}") == "visible"
    assert bob.evaluate(f"(window.dispatchEvent(new Event('focus')), {of_the_button})") == "hidden"
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    for page in (alice, bob):
        page.context.close()


def test_a_key_that_the_server_did_not_take_is_not_used(site, browser):
    """The tab went on with it, and after a reload it was gone: a server that begins anew answers so, or one with much to do."""
    alice, bob = visit(browser, f"{site}/Traces"), visit(browser, f"{site}/Traces")
    old = key_of(bob)
    bob.route("**/visitor", lambda route: route.fulfill(status=502))
    bob.goto(f"{site}/Traces?visitor={key_of(alice)}")
    button(bob, "Take them").click()
    bob.get_by_text("did not take the key").wait_for()
    assert key_of(bob) == old
    bob.unroute("**/visitor")
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    for page in (alice, bob):
        page.context.close()


def test_a_tab_that_took_a_key_does_not_bring_it_back(site, browser):
    """It handed it over with every page, also when the browser had been given another one since."""
    alice, bob = visit(browser, f"{site}/Traces"), visit(browser, f"{site}/Traces")
    own, second = key_of(bob), bob.context.new_page()
    bob.goto(f"{site}/Traces?visitor={key_of(alice)}")
    button(bob, "Take them").click()
    until(bob, lambda: key_of(bob) == key_of(alice), "the key was not taken")
    second.goto(f"{site}/Traces?visitor={own}")
    button(second, "Take them").click()
    until(bob, lambda: key_of(bob) == own, "the key was not taken back")
    bob.get_by_role("link", name="Methods").first.click()
    bob.get_by_role("heading", name="Methods").first.wait_for()
    settled(bob)
    assert key_of(bob) == own
    for page in (alice, bob):
        page.context.close()


def test_a_key_of_an_earlier_version_is_handed_over(site, browser):
    page, old = visit(browser, f"{site}/_stcore/health"), "o" * 43
    page.evaluate(f"localStorage.setItem('{NAME}', '{old}')")
    page.goto(f"{site}/Traces")
    until(page, lambda: key_of(page) == old, "the old key is lost")
    until(page, lambda: said_key(page) == old, "the pages have another key")
    page.reload()  # the browser brings it now, so that what lay there may go
    until(page, lambda: key_of(page) == old and hidden(page), "a script can still read it")
    page.context.close()


def test_a_link_from_another_site_leads_to_what_was_kept(site, elsewhere, browser):
    """A cookie that a browser does not send with such a visit would be written over by a new one, and all that was kept lost."""
    page = visit(browser, f"{site}/Traces")
    key = key_of(page)
    page.goto(elsewhere)
    page.locator("a").click()
    until(page, lambda: said_key(page) == key, "the visitor is another one")
    assert key_of(page) == key and hidden(page)
    page.context.close()


def test_another_site_cannot_hand_over_a_key(site, elsewhere, browser):
    page = visit(browser, f"{site}/Traces")
    key = key_of(page)
    page.goto(elsewhere)
    more = "method: 'POST', headers: {'x-draftscope': '1'}, body: 'e'.repeat(43), credentials: 'include'"
    request = f"fetch('{site}/visitor', {{{more}}})"
    assert page.evaluate(f"{request}.then(() => 'answered', () => 'refused')") == "refused"
    assert key_of(page) == key
    page.context.close()
