import base64
import json
import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from whit.core.budget import Budget
from whit.core.notes import Lines, Pictures, Table
from whit.errors import MissingExtra, WhitError
from whit.measure.verdict import RULE
from whit.reporting.page import report_html, write_report
from whit.reporting.page_markup import data_script, tag
from whit.reporting.page_origin import command_of
from whit.spec_strings import parse_entry

VOID = {"br", "img", "meta", "wbr"}


class Reader(HTMLParser):
    """Texts, attributes and the nesting of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if text.strip() and not {"script", "style", "title"} & set(self.open):
            self.texts.append(text.strip())

    def find(self, name):
        return [attributes for found, attributes in self.tags if found == name]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(real):
    return report_html(real)


@pytest.fixture(scope="module")
def full(twelve):
    return report_html(twelve)


def figures_of(page):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)
    return {figure["id"]: figure for figure in json.loads(found[1])}


def test_the_recommendation_is_the_first_text(page, real):
    reader = Reader(page)
    row, sentence = real.recommend()
    assert reader.text.startswith(f"Skip to the results {sentence.partition(row.label)[0]}")
    heading = page.partition("<h1>")[2].partition("</h1>")[0]
    assert sentence == unescape(re.sub(r"<[^>]+>", "", heading))
    size = row.best.packed_path.stat().st_size
    assert f"{size:,} bytes" in reader.text
    assert str(row.best.packed_path) in reader.text


def test_the_page_says_how_to_read_it(page, real):
    text = Reader(page).text
    assert RULE in text
    for words in ("higher", "lower", "measured", "modelled", "counted", "read 6 times", "20.3"):
        assert words in text
    assert "0.003 pJ, our own assumption" in text
    assert "Task iris , 2 techniques and the control plain() , seeds 0, 1." in text


def test_the_markup_is_well_formed_and_headings_descend(full):
    reader = Reader(full)
    assert reader.open == []
    assert reader.find("html") == [{"lang": "en"}]
    levels = [int(name[1]) for name, _ in reader.tags if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert len(reader.find("caption")) == len(reader.find("table"))
    assert all("scope" in attributes for attributes in reader.find("th"))
    names = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"] for attributes in reader.find("a")]
    assert links
    assert all(link.startswith("#") and link[1:] in names for link in links)


def test_the_policy_allows_these_scripts_alone(page):
    policy = next(m["content"] for m in Reader(page).find("meta") if "content" in m)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert policy.partition("script-src")[2].partition(";")[0].count("'sha256-") == 4
    assert all(not {"src", "href", "srcset"} & set(a) for n, a in Reader(page).tags if n != "a")


def test_texts_of_users_stay_texts(full):
    reader = Reader(full)
    assert len(reader.find("script")) == 5
    assert reader.find("img") == []
    assert "</script><script>window.broken=1</script>" in reader.text.replace(" ", "")
    # Once more inside the JSON of the charts, for which plotly.js must find no markup either.
    hover = json.dumps(figures_of(full))
    assert "&lt;/script&gt;&lt;script&gt;" in hover
    assert "cannot pack module 'net.<b>'" in reader.text


def test_json_holds_no_markup_and_no_nan():
    text = data_script("x", {"a": "</script><!--", "b": [float("nan"), 1.5], "c": "\u2028&"})
    assert text.count("<") == 2
    inner = text.partition(">")[2].removesuffix("</script>")
    assert json.loads(inner) == {"a": "</script><!--", "b": [None, 1.5], "c": "\u2028&"}


def test_attributes_are_escaped():
    written = tag("p", "<b>", title='"<&', hidden=True)
    assert written == '<p title="&quot;&lt;&amp;" hidden>&lt;b&gt;</p>'


def test_points_are_the_means_of_validation_and_bars_the_spread(page, real):
    chart = figures_of(page)["chart-stored_bytes"]
    points = {trace["name"]: trace for trace in chart["data"] if trace["name"].isdigit()}
    assert len(points) == 3
    for number, row in enumerate(real.rows, 1):
        trace = points[str(number)]
        assert trace["x"] == [row.means["stored_bytes"]]
        assert trace["y"] == [row.means["valid_accuracy"]]
        assert trace["error_y"]["array"] == [row.spreads["valid_accuracy"]]
        hollow = trace["marker"]["symbol"].endswith("-open")
        assert hollow == (row not in real.pareto("valid_accuracy", "stored_bytes"))
    assert "test_accuracy" not in json.dumps(figures_of(page))


def test_the_front_is_a_line_of_steps_to_the_edge(page, real):
    chart = figures_of(page)["chart-stored_bytes"]
    (line,) = [trace for trace in chart["data"] if trace["name"] == "front"]
    front = real.pareto("valid_accuracy", "stored_bytes")
    assert line["line"]["shape"] == "hv"
    assert line["x"][:-1] == [row.means["stored_bytes"] for row in front]
    assert line["y"][:-1] == [row.means["valid_accuracy"] for row in front]
    assert line["y"][-1] == line["y"][-2]


def test_test_scores_move_nothing_in_the_charts(real):
    other = tuple(
        replace(row, means=row.means | {"test_accuracy": n / 10}) for n, row in enumerate(real.rows)
    )
    assert figures_of(report_html(replace(real, rows=other))) == figures_of(report_html(real))


def test_a_limit_of_the_budget_is_drawn_where_it_lies_in_the_chart(real):
    low, high = sorted(row.means["stored_bytes"] for row in real.rows)[::2]
    inside = replace(real, budget=Budget(f"stored_bytes <= {(low + high) / 2}"))
    (line,) = figures_of(report_html(inside))["chart-stored_bytes"]["layout"]["shapes"]
    assert line["x0"] == (low + high) / 2
    beyond = replace(real, budget=Budget("stored_bytes <= 1 GB"))
    assert figures_of(report_html(beyond))["chart-stored_bytes"]["layout"]["shapes"] == []


def test_unknown_is_said_with_its_reason_and_never_drawn(full, twelve):
    figures = figures_of(full)
    names = [trace["name"] for trace in figures["chart-latency_ms"]["data"]]
    assert {"10", "11", "12"}.isdisjoint(names)
    assert "11" in [trace["name"] for trace in figures["chart-macs"]["data"]]
    text = Reader(full).text
    assert "it is not a finite number" in text
    assert "nan" not in re.findall(r"\w+", text)
    assert "not possible: no <layers>" in text
    assert "stale: code, data" in text
    assert "judged against 'plain() @ epochs=9'" in text


def test_curves_are_the_history_of_the_runs(page, real):
    chart = figures_of(page)["chart-loss"]
    means = {t["name"]: t for t in chart["data"] if t["meta"] == "mean"}
    runs = real.rows[2].runs
    losses = [run.row["history"][0]["loss"] for run in runs]
    assert means["3"]["x"] == [1, 2, 3]
    assert means["3"]["y"] == pytest.approx([sum(pair) / 2 for pair in zip(*losses, strict=True)])
    faint = [t["y"] for t in chart["data"] if t["name"] == "3" and t["meta"] == "seed"]
    assert faint == losses
    # A teacher's training and the student's: one after the other, with a gap between.
    assert len(real.rows[1].runs[0].row["history"]) == 2
    assert means["2"]["x"] == [1, 2, 3, 4, 4, 5, 6]
    assert means["2"]["y"][3] is None
    assert "2 trains anew from epoch 4" in Reader(page).text


def test_runs_without_history_say_so(real):
    old = tuple(
        replace(row, runs=tuple(replace(run, row={**run.row, "history": None}) for run in row.runs))
        for row in real.rows
    )
    page = report_html(replace(real, rows=old))
    assert "chart-loss" not in figures_of(page)
    assert "did not store them" in page


def test_warnings_of_health_are_shown(real):
    run = real.rows[1].runs[0]
    history = [{**fit, "warnings": ["12 units are <dead>"]} for fit in run.row["history"]]
    ill = replace(run, row={**run.row, "history": history})
    row = replace(real.rows[1], runs=(ill, *real.rows[1].runs[1:]))
    page = report_html(replace(real, rows=(real.rows[0], row)))
    text = Reader(page).text
    assert "seed 0, fit 2: 12 units are <dead>" in text
    assert "2 warnings" in text


def test_layers_are_those_of_the_best_seed(page, real):
    text = Reader(page).text
    for row in real.rows:
        for layer in row.best.columns["layers"]:
            assert f"{layer['before_bytes']:,} => {layer['after_bytes']:,}" in text


def test_commands_settings_and_origin(page, real):
    text = Reader(page).text
    for row in real.rows:
        assert row.command in text
    assert "whit run iris" in text
    assert str(real.rows[0].runs[0].row["provenance"]["cpu"]) in text
    assert "results.jsonl" in text


def test_a_row_without_a_command_gets_one_with_all_settings(real):
    rows = tuple(replace(row, command="") for row in real.rows)
    text = Reader(report_html(replace(real, rows=rows))).text
    words = shlex.split(command_of(rows[2], real))
    assert words[:3] == ["whit", "run", "iris"]
    assert parse_entry(words[3]).settings_changes == rows[2].runs[0].planned.settings.as_dict()
    assert parse_entry(words[3]).technique.spec == rows[2].spec
    assert words[4:] == ["--out", real.out, "--seed", "0", "--seeds", "2"]
    assert shlex.join(words) in text


def test_seeds_with_gaps_get_a_command_each(real):
    first, second = real.rows[0].runs
    later = replace(second, planned=replace(second.planned, seed=7))
    text = command_of(replace(real.rows[0], command="", runs=(first, later)), real)
    assert text.count("whit run iris") == 2
    assert text.endswith("--seed 7")
    assert command_of(replace(real.rows[0], command="", runs=()), real) is None


def test_rows_that_break_the_budget_are_named(real):
    page = report_html(replace(real, budget=Budget("stored_bytes <= 1 kB")))
    text = Reader(page).text
    assert text.count("is broken: stored_bytes is") >= 3
    assert "over budget" in text
    none = Reader(report_html(replace(real, budget=Budget("stored_bytes <= 1 B")))).text
    assert none.partition("results ")[2].startswith("No technique keeps the budget")
    assert "nearest to the budget" in none
    assert "recommended control" not in none


def test_one_row_and_one_seed(real):
    control = replace(real.rows[0], runs=real.rows[0].runs[:1], spreads={})
    text = Reader(report_html(replace(real, rows=(control,), budget=Budget()))).text
    assert "there was nothing to compare it with" in text
    assert "seed 0." in text
    assert "±" not in text


def test_no_packed_file_at_all(real):
    costs = ("stored_bytes", "macs", "energy_nj", "latency_ms")
    rows = []
    for row in real.rows:
        runs = tuple(
            replace(run, row={**run.row, "scorecard": run.columns | {"stored_bytes": None}})
            for run in row.runs
        )
        means = {name: value for name, value in row.means.items() if name not in costs}
        rows.append(replace(row, runs=runs, means=means, reasons=dict.fromkeys(costs, "a loop")))
    page = report_html(replace(real, rows=tuple(rows)))
    assert "There is no packed file: a loop." in Reader(page).text
    assert not any(name.endswith(("bytes", "ms", "macs", "nj")) for name in figures_of(page))


def test_the_file_is_written_whole(real, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(real, path) == path
    assert path.read_text().startswith("<!doctype html>")
    assert path.read_text().endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(WhitError, match="could not be written"):
        write_report(real, tmp_path / "missing" / "report.html")


def test_without_plotly_the_extra_is_named(real, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(MissingExtra, match=r"whit\[train\]"):
        report_html(real)


NOTES = {
    "situations": Table(("name", "share"), [("<4 or 9>", 0.125)], "On held-out data."),
    "entropy": Lines(("layer", ["a", "b"]), {"before": [1.0, None], "after": [2.0, 3.0]}, "Nats."),
    "prototypes": Pictures(
        [
            (np.arange(6, dtype=np.uint8).reshape(2, 3), "a 4"),
            (np.full((2, 2, 3), 7, np.uint8), "red"),
        ],
        "Nearest.",
    ),
}


def test_notes_are_shown_where_there_are_any(real, page):
    assert "What the techniques found" not in Reader(page).text
    control, student, *rest = real.rows
    run = student.best
    noted = replace(run, row={**run.row, "notes": {k: n.as_dict() for k, n in NOTES.items()}})
    runs = tuple(noted if one is run else one for one in student.runs)
    page_with = report_html(replace(real, rows=(control, replace(student, runs=runs), *rest)))
    read = Reader(page_with)
    assert "What the techniques found" in read.text and "<4 or 9>" in read.text
    images = read.find("img")
    assert [(i["alt"], i["width"], i["height"]) for i in images] == [
        ("a 4", "9", "6"),
        ("red", "6", "6"),
    ]
    content = base64.b64decode(images[0]["src"].partition(",")[2])
    assert content.startswith(b"\x89PNG")
    figures = figures_of(page_with)
    lines = next(figure for name, figure in figures.items() if name.startswith("chart-note"))
    assert [trace["y"] for trace in lines["data"]] == [[1.0, None], [2.0, 3.0]]
    assert any(a.get("id") == lines["id"] for a in read.find("div"))
