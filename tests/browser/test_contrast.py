"""All text of all pages in both themes: its contrast with what lies below it is 4.5 to 1 or more, computed from what the browser
paints, half-transparent colours and faded parents included. Icons and text of 24 px and more want 3 to 1; what cannot be pressed is
exempt, as it is in the WCAG."""

import pytest
from playwright.sync_api import expect

from tests.conftest import PATIENCE, settled

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]

# Every text node of the document and of its shadow roots -> [text, ratio, wanted] of those that are too faint.
FAINT = """
() => {
  const numbers = c => {
    const m = c.match(/[\\d.]+/g).map(Number), of = c.startsWith("color(") ? 255 : 1;
    return [m[0] * of, m[1] * of, m[2] * of, m[3] ?? 1];
  };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => {
    const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const up = e => { const found = []; for (; e; e = e.parentElement ?? e.getRootNode().host ?? null) found.push(e); return found; };
  const page = numbers(getComputedStyle(document.querySelector('[data-testid="stApp"]')).backgroundColor);
  const roots = [document.body, ...[...document.querySelectorAll("*")].map(e => e.shadowRoot).filter(Boolean)];
  const faint = []; let seen = 0;
  for (const root of roots) {
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const e = node.parentElement, style = e && getComputedStyle(e);
      if (!e || !node.data.trim() || e.closest("style, script, noscript, :disabled, [aria-disabled=true], [disabled]")) continue;
      if (e.closest('[data-testid="stSliderThumbValue"]')) continue;  // it stands above the thumb, not on it
      const range = document.createRange(); range.selectNodeContents(node);
      const box = range.getBoundingClientRect(), chain = up(e);
      if (box.width < 2 || box.height < 2 || style.visibility !== "visible") continue;
      const faded = chain.reduce((all, x) => all * getComputedStyle(x).opacity, 1);
      if (faded < 0.05) continue;
      const below = chain.reverse().reduce((all, x) => over(numbers(getComputedStyle(x).backgroundColor), all), page);
      const ink = numbers(e.namespaceURI.includes("svg") ? style.fill : style.color);
      const [a, b] = [light(over([ink[0], ink[1], ink[2], ink[3] * faded], below)), light(below)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || e.closest('[data-testid*="Icon"]');
      seen++;
      const what = `${node.data.trim().slice(0, 40)} (${e.className?.baseVal ?? e.className})`;
      if (ratio < (large ? 3 : 4.5)) faint.push(`${what}: ${ratio.toFixed(2)}`);
    }
  }
  return [seen, [...new Set(faint)]];
}
"""
PLANT = "s => document.querySelector('.stMain').insertAdjacentHTML('beforeend', `<p style='${s}'>planted</p>`)"
LOOKS = 20
PAGES = {  # address -> what is there once the page is painted
    "/": ".lanes-place",
    "/Learn": ".lsn-title",
    "/Learn?lesson=3&card=3": ".stp .tok",
    "/Step": ".stp .box",
    "/Compare": ".ds-strip",
    "/Drafter": ".st-key-study_run, .stMain button",
    "/Methods": ".ds-card",
    "/Traces": ".ds-title",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_text_is_too_faint(page, site, scheme):
    found = {}
    page.emulate_media(color_scheme=scheme)
    for path, ready in PAGES.items():
        page.goto(site + path)
        page.locator(ready).first.wait_for()
        expect(page.locator(".st-key-loading .ds-wait")).to_have_count(0)
        settled(page)
        for _ in range(LOOKS):  # words that come in are faint for a moment
            seen, faint = page.evaluate(FAINT)
            if not faint:
                break
            page.wait_for_timeout(500)
        assert seen > 10, path
        found |= {path: faint} if faint else {}
    assert not found


def test_the_measure_notices_faint_text(page, site):
    page.emulate_media(color_scheme="light")
    page.goto(site + "/Traces")
    page.locator(".ds-title").first.wait_for()
    settled(page)
    for style in ("background:#56B4E9;color:#fff", "opacity:0.4", "color:rgba(31,35,40,0.5)"):
        page.evaluate(PLANT, style)
    assert len([said for said in page.evaluate(FAINT)[1] if said.startswith("planted")]) == 3
