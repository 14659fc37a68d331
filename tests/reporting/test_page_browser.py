"""The report page in headless Chromium, without a network, as a reader uses it."""

import json
import os
import re
import shutil
from dataclasses import replace

import pytest

from whit.reporting.page import report_html

CHROMIUM = shutil.which("chromium")
WIDTHS = (1400, 390)
DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)"
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


@pytest.fixture
def visit(browser, files):
    """Open a page offline; whatever it asks for and whatever goes wrong on it is an error."""
    contexts = []

    def visited(name, width=1400, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
        )
        page = context.new_page()
        contexts.append((page, asked := [], wrong := []))
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((files / f"{name}.html").as_uri())
        page.wait_for_function(DRAWN)
        return page

    yield visited
    for page, asked, wrong in contexts:
        page.context.close()
        assert [re.sub(r".*/", "", url) for url in asked] in (
            ["real.html"],
            ["twelve.html"],
            ["one.html"],
        )
        assert wrong == []


def names_in(page):
    return page.eval_on_selector_all(
        "#results tbody tr", "(rows) => rows.map((row) => Number(row.dataset.mark))"
    )


def requests_of_pages(log):
    """Return what pages asked for, by Chromium's own network log; not what the browser itself did."""
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    own = (None, "not an origin")
    return [e["url"] for e in events if "url" in e and e.get("initiator") not in own]


def logged_requests(launch, log, page):
    with launch(f"--log-net-log={log}") as browser:
        opened = browser.new_page()
        opened.goto(page.as_uri())
        opened.wait_for_timeout(1000)
    return requests_of_pages(log)


def test_the_network_log_is_empty(launch, files, tmp_path):
    assert logged_requests(launch, tmp_path / "log.json", files / "twelve.html") == []


def test_the_network_log_shows_a_page_that_asks(launch, tmp_path):
    page = tmp_path / "asks.html"
    page.write_text("<img src='http://example.invalid/x.png'>")
    asked = logged_requests(launch, tmp_path / "log.json", page)
    assert "http://example.invalid/x.png" in asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["real", "twelve", "one"])
def test_the_page_is_as_wide_as_the_window(visit, name, width, scheme):
    page = visit(name, width, scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.eval_on_selector_all("details", "(all) => all.forEach((one) => { one.open = true; })")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", ["real", "twelve", "one"])
def test_every_known_point_is_drawn(visit, name, request):
    comparison = request.getfixturevalue("twelve" if name == "twelve" else "real")
    rows = comparison.rows[:1] if name == "one" else comparison.rows
    page = visit(name)
    for cost in COSTS:
        known = [r for r in rows if r.means.get(cost) == r.means.get(cost, 0) and cost in r.means]
        ring = comparison.recommend()[0] in known if name != "one" else True
        points = page.locator(f"#chart-{cost} .scatterlayer .points path.point").count()
        assert points == len(known) + ring
        labels = page.locator(f"#chart-{cost} .annotation-text").all_inner_texts()
        numbers = sorted(int(re.match(r"\d+", label)[0]) for label in labels)
        assert numbers == [n for n, row in enumerate(rows, 1) if row in known]


OVERLAPS = """(plot) => {
  const boxes = [...plot.querySelectorAll('.annotation-text')].map((t) => t.getBoundingClientRect());
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
        lines = page.locator(f"#{chart} .scatterlayer path.js-line")
        assert lines.count() == len(real.rows) * (len(real.rows[0].runs) + 1)
    button = page.locator("[data-curve='2']")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_function("document.querySelectorAll('#chart-loss path.js-line').length === 6")
    button.click()
    page.wait_for_function("document.querySelectorAll('#chart-loss path.js-line').length === 9")


def test_a_click_sorts_and_unknown_comes_last(visit, twelve):
    page = visit("twelve")
    values = {n: row.means.get("stored_bytes") for n, row in enumerate(twelve.rows, 1)}
    known = [n for n in values if values[n] is not None]
    head = page.locator("#results th", has_text="file")
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
    head = page.locator("#results th", has_text="validation")
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
    page = visit("real", permissions=["clipboard-read", "clipboard-write"] if allowed else [])
    if not allowed:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    button = page.locator("[data-copy='command-2']")
    button.click()
    page.wait_for_function(
        "document.querySelector(\"[data-copy='command-2']\").textContent !== 'Copy'"
    )
    assert button.inner_text() == "Copied"
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
  const names = ['text', 'soft', 'link', 'good', 'bad', 'control', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6',
    'page', 'raised'];
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


def test_plots_follow_the_theme_when_it_changes(visit):
    page = visit("real")
    ground = "getComputedStyle(document.querySelector('#chart-macs .main-svg')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ground} === getComputedStyle(document.body).backgroundColor")
    assert page.evaluate(ground) != "rgb(255, 255, 255)"


def test_plots_follow_the_window(visit):
    page = visit("real")
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_function("document.querySelector('#chart-macs .main-svg').clientWidth <= 390")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_print_opens_what_is_closed(visit):
    page = visit("real")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
