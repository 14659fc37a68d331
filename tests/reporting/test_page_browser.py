"""The report page in headless Chromium, without a network, as a reader uses it."""

import json
import math
import os
import re
import shutil
import time
from dataclasses import replace

import pytest

from whit.reporting.page import report_html

CHROMIUM = shutil.which("chromium")
WIDTHS = (1400, 390)
# The charts are as wide as their places and have their colours: they follow both a little later.
DRAWN = """[...document.querySelectorAll('.plot')].every((plot) => {
  const drawn = plot.dataset.drawn && plot.querySelector('.main-svg');
  const style = drawn && getComputedStyle(drawn).backgroundColor;
  return drawn && drawn.clientWidth === plot.clientWidth &&
    style === getComputedStyle(document.body).backgroundColor;
})"""
PATIENCE_MS = 180_000  # for machines that are busy with something else
COSTS = ("stored_bytes", "macs", "latency_ms", "energy_nj")


@pytest.fixture(scope="module")
def launch():
    """How to start Chromium; in CI it must be there."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if CHROMIUM is None or sync_playwright is None:
        lacks = "chromium (apt-get install chromium)" if sync_playwright else "playwright"
        said = f"{lacks} is not installed"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    with sync_playwright() as playwright:
        yield lambda *options: playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--host-resolver-rules=MAP * ~NOTFOUND", *options]
        )


@pytest.fixture(scope="module")
def browser(launch):
    """One browser for all tests."""
    with launch() as started:
        yield started


@pytest.fixture(scope="module")
def files(real, twelve, tmp_path_factory):
    """The pages as files."""
    folder = tmp_path_factory.mktemp("pages")
    one = replace(real, rows=real.rows[:1])
    for name, comparison in (("real", real), ("twelve", twelve), ("one", one)):
        (folder / f"{name}.html").write_text(report_html(comparison), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def opened(browser, files):
    """Open a page offline, once; with what it asked for and what went wrong on it."""
    pages = {}

    def open_page(name, permissions=()):
        if (name, permissions) not in pages:
            page = browser.new_context(offline=True, permissions=permissions).new_page()
            asked, wrong = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda said: wrong.append(said.text))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto((files / f"{name}.html").as_uri(), timeout=PATIENCE_MS)
            pages[name, permissions] = (page, asked, wrong)
        return pages[name, permissions]

    return open_page


@pytest.fixture
def visit(opened):
    """Show a page in a window of this width and theme; any request or message is an error."""
    used = []

    def visited(name, width=1400, scheme="light", permissions=()):
        used.append((name, opened(name, permissions)))
        page = used[-1][1][0]
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        wait(page, DRAWN)
        return page

    yield visited
    for name, (_, asked, wrong) in used:
        assert {url.rpartition("/")[2] for url in asked} == {f"{name}.html"}
        assert wrong == []


def wait(page, expression, seconds=PATIENCE_MS / 1000):
    """Wait until an expression holds; the page's policy forbids playwright's own way."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def names_in(page):
    return page.eval_on_selector_all(
        "#results tbody tr", "(rows) => rows.map((row) => Number(row.dataset.mark))"
    )


def requests_of_pages(log):
    """Return what pages asked for by Chromium's network log, without what the browser did."""
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    own = (None, "not an origin")
    return [e["url"] for e in events if "url" in e and e.get("initiator") not in own]


def logged_requests(launch, log, page):
    with launch(f"--log-net-log={log}") as browser:
        opened = browser.new_page()
        opened.goto(page.as_uri(), timeout=PATIENCE_MS)
        opened.wait_for_timeout(1000)
    return requests_of_pages(log)


def test_the_network_log_is_empty(launch, files, tmp_path):
    assert logged_requests(launch, tmp_path / "log.json", files / "twelve.html") == []


def test_the_network_log_shows_a_page_that_asks(launch, tmp_path):
    page = tmp_path / "asks.html"
    page.write_text("<img src='http://example.invalid/x.png'>")
    asked = logged_requests(launch, tmp_path / "log.json", page)
    assert "http://example.invalid/x.png" in asked


@pytest.mark.parametrize("width", [1400, 390, 320])
@pytest.mark.parametrize("name", ["real", "twelve", "one"])
def test_the_page_is_no_wider_than_the_window(visit, name, width):
    page = visit(name, width)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    all_open = "(all, open) => all.forEach((one) => { one.open = open; })"
    page.eval_on_selector_all("details", all_open, True)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.eval_on_selector_all("details", all_open, False)


@pytest.mark.parametrize("name", ["real", "twelve", "one"])
def test_every_known_point_is_drawn(visit, name, request):
    comparison = request.getfixturevalue("twelve" if name == "twelve" else "real")
    rows = comparison.rows[:1] if name == "one" else comparison.rows
    page = visit(name)
    chosen = replace(comparison, rows=tuple(rows)).recommend()[0]
    for cost in COSTS:
        known = [row for row in rows if math.isfinite(row.means.get(cost, math.nan))]
        points = page.locator(f"#chart-{cost} .scatterlayer .points path.point").count()
        assert points == len(known) + (chosen in known)
        labels = page.locator(f"#chart-{cost} .annotation-text").all_text_contents()
        numbers = sorted(int(re.match(r"\d+", label)[0]) for label in labels)
        assert numbers == [n for n, row in enumerate(rows, 1) if row in known]


def test_the_limit_of_the_budget_is_drawn(visit, real):
    page = visit("real")
    assert page.locator("#chart-stored_bytes .shape-label-text").all_text_contents() == ["budget"]
    line = page.locator("#chart-stored_bytes .shapelayer path").first.bounding_box()
    point = page.locator("#chart-stored_bytes .trace path.point").last.bounding_box()
    limit, last = real.budget.limits[0].value, real.rows[-1].means["stored_bytes"]
    assert (line["x"] > point["x"] + point["width"]) == (limit > last)
    assert line["height"] > 200


OVERLAPS = """(plot) => {
  const labels = [...plot.querySelectorAll('.annotation-text')];
  const boxes = labels.map((label) => label.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 &&
    a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const frame = plot.getBoundingClientRect();
  const out = boxes.filter((b) => b.left < frame.left - 1 || b.right > frame.right + 1).length;
  return out + boxes.flatMap((a, n) => boxes.slice(n + 1).filter((b) => meet(a, b))).length;
}"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["real", "twelve"])
def test_no_label_lies_on_another(visit, name, width):
    page = visit(name, width)
    for cost in COSTS:
        assert page.locator(f"#chart-{cost}").evaluate(OVERLAPS) == 0


def test_curves_have_a_line_for_each_technique_and_each_seed(visit, real):
    page = visit("real")
    for chart in ("chart-loss", "chart-valid"):
        lines = page.locator(f"#{chart} .scatterlayer .trace")
        assert lines.count() == len(real.rows) * (len(real.rows[0].runs) + 1)
    button = page.locator("[data-curve='2']")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    wait(page, "document.querySelectorAll('#chart-loss .trace').length === 6")
    button.click()
    wait(page, "document.querySelectorAll('#chart-loss .trace').length === 9")


def test_a_click_sorts_and_unknown_comes_last(visit, twelve):
    page = visit("twelve")
    values = {n: row.means.get("stored_bytes") for n, row in enumerate(twelve.rows, 1)}
    known = [n for n in values if values[n] is not None]
    head = page.locator("#results thead th", has_text="bytes")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    order = names_in(page)
    assert [values[n] for n in order[: len(known)]] == sorted(values[n] for n in known)
    assert order[-2:] == [10, 12]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    order = names_in(page)
    assert [values[n] for n in order[: len(known)]] == sorted(
        (values[n] for n in known), reverse=True
    )
    assert order[-2:] == [10, 12]
    assert page.locator("#sorted").inner_text() == "Sorted by file, descending."


def test_enter_sorts_with_the_best_first(visit, twelve):
    page = visit("twelve")
    head = page.locator("#results thead th", has_text="validation")
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    valid = [row.means.get("valid_accuracy", -1.0) for row in twelve.rows]
    order = names_in(page)
    assert [valid[n - 1] for n in order] == sorted(valid, reverse=True)
    others = page.locator("#results th[aria-sort='none']").count()
    assert others == page.locator("#results thead th").count() - 1


def test_everything_is_reached_by_keyboard_and_shows_it(visit):
    page = visit("real")
    page.reload(timeout=PATIENCE_MS)  # the way begins at the top
    wait(page, DRAWN)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    seen = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "[document.activeElement.outerHTML.slice(0, 90), "
            "getComputedStyle(document.activeElement).outlineStyle]"
        )
        if found[0].startswith("<body"):
            break
        assert found[1] == "solid", found[0]
        seen.add(found[0])
    kinds = ("data-first", "data-curve", 'class="copy"', "<summary", 'class="scroll"')
    assert all(any(kind in element for element in seen) for kind in kinds)


def test_numbers_of_a_chart_open_by_keyboard(visit):
    page = visit("real")
    summary = page.locator("#chart-macs + details > summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("#chart-macs + details tbody tr").first.is_visible()


@pytest.mark.parametrize("allowed", [True, False])
def test_the_command_is_copied_with_and_without_a_clipboard(visit, real, allowed):
    page = visit("real", permissions=("clipboard-read", "clipboard-write") if allowed else ())
    if not allowed:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button = page.locator("[data-copy='command-2']")
    button.click()
    wait(page, """document.querySelector("[data-copy='command-2']").textContent === 'Copied'""")
    if allowed:
        assert page.evaluate("navigator.clipboard.readText()") == real.rows[1].command
    else:
        assert page.evaluate("getSelection().toString()") == real.rows[1].command


def test_a_hostile_name_is_shown_and_runs_nothing(visit):
    page = visit("twelve")
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0
    shown = page.locator("#results tbody th", has_text="window.broken").inner_text()
    assert "</script><script>window.broken=1</script>" in shown.replace("\n", "")


def luminance(color):
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


SHOWN = """() => {
  const probe = document.body.appendChild(document.createElement('span'));
  const names = ['text', 'soft', 'link', 'good', 'bad', 'control', 'c1', 'c2', 'c3',
    'c4', 'c5', 'c6', 'page', 'raised'];
  return Object.fromEntries(names.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color];
  }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_in_both_themes(visit, scheme):
    colors = {n: luminance(c) for n, c in visit("real", 1400, scheme).evaluate(SHOWN).items()}
    for ground in ("page", "raised"):
        for name in colors.keys() - {"page", "raised"}:
            low, high = sorted((colors[name], colors[ground]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ground)


def test_plots_follow_the_theme_and_the_window(visit):
    page = visit("real")
    ground = "getComputedStyle(document.querySelector('#chart-macs .main-svg')).backgroundColor"
    label = "document.querySelector('#chart-macs .annotation-text').style.fill"
    light = page.evaluate(ground), page.evaluate(label)
    dark = visit("real", 390, "dark")
    assert light[0] == "rgb(255, 255, 255)"
    assert dark.evaluate(ground) != light[0]
    assert dark.evaluate(label) != light[1]
    assert dark.evaluate("document.querySelector('#chart-macs .main-svg').clientWidth") < 390


def test_print_opens_what_is_closed(visit):
    page = visit("real")
    before = page.locator("details[open]").count()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == before
