"use strict";
// Draws the figures with the colours of the theme and the width of the window.

const CHARTS = (() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const family = getComputedStyle(document.body).fontFamily;
  const hidden = new Set();

  function themeColor(text) {
    const name = /^var\((--[a-z0-9]+)\)$/.exec(text);
    return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : text;
  }

  // Colours only: a text of a user that looks like a variable stays as it is.
  function colored(value, key = "") {
    if (Array.isArray(value)) return value.map((inner) => colored(inner));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, inner]) => [k, colored(inner, k)]));
    }
    return typeof value === "string" && /color$/.test(key) ? themeColor(value) : value;
  }

  function escaped(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function areaOf(layout, box) {
    const { l, r, t, b } = layout.margin;
    return { width: box.clientWidth - l - r, height: box.clientHeight - t - b };
  }

  function pixels(layout, area) {
    const [x0, x1] = layout.xaxis.range, [y0, y1] = layout.yaxis.range;
    return {
      x: (value) => ((value - x0) / (x1 - x0)) * area.width,
      y: (value) => ((y1 - value) / (y1 - y0)) * area.height,
    };
  }

  function annotation(point, text, x, y, color, shift) {
    return {
      x: point.place.x, y: point.place.y, text: text.map(escaped).join("<br>"), showarrow: shift > LABELS.FREE,
      ax: x - point.x, ay: y - point.y, xanchor: "center", yanchor: "middle", arrowhead: 0,
      arrowwidth: 1, arrowcolor: color, standoff: 7, align: "left", borderpad: 0,
      ...(shift > LABELS.FREE ? {} : { xshift: x - point.x, yshift: point.y - y }),
      font: { size: LABELS.FONT_SIZE, color, weight: 600 },
    };
  }

  function annotations(figure, box) {
    if (!figure.labels) return [];  // the lines of a note have a legend
    const area = areaOf(figure.layout, box), at = pixels(figure.layout, area);
    const points = figure.labels.filter((label) => !hidden.has(label.number)).map((label) => ({
      place: label, x: at.x(label.x), y: at.y(label.y), number: label.number, lines: label.lines,
      color: themeColor(label.color),
    }));
    if (figure.at_end) {
      return LABELS.stack(points, area).map((p) =>
        annotation(p, [p.number], p.x + 18, p.shown, p.color, Math.abs(p.shown - p.y) > 8 ? Infinity : 0));
    }
    const lines = figure.obstacles.map(([x0, y0, x1, y1]) => ({
      left: Math.min(at.x(x0), at.x(x1)) - 1, right: Math.max(at.x(x0), at.x(x1)) + 1,
      top: Math.min(at.y(y0), at.y(y1)) - 1, bottom: Math.max(at.y(y0), at.y(y1)) + 1,
    }));
    return LABELS.place(points, lines, area, family).map(({ point, text, box: b, reach }) =>
      annotation(point, text, (b.left + b.right) / 2, (b.top + b.bottom) / 2, point.color, reach));
  }

  function layoutOf(figure, box) {
    const text = themeColor("var(--text)"), page = themeColor("var(--page)");
    const layout = colored(figure.layout);
    for (const axis of [layout.xaxis, layout.yaxis]) {
      axis.tickfont = { size: 12, color: themeColor("var(--soft)") };
      if (axis.title) axis.title = { ...axis.title, standoff: 10, font: { size: 12.5, color: themeColor("var(--soft)") } };
    }
    for (const shape of layout.shapes || []) shape.label.font.color = themeColor("var(--bad)");
    return {
      ...layout, width: box.clientWidth, height: box.clientHeight, autosize: false, showlegend: layout.showlegend === true,
      paper_bgcolor: page, plot_bgcolor: page, font: { family, size: 12, color: text }, dragmode: false,
      hovermode: "closest", annotations: annotations(figure, box),
      hoverlabel: { bgcolor: themeColor("var(--raised)"), bordercolor: themeColor("var(--rule)"), font: { family, size: 12.5, color: text }, align: "left" },
    };
  }

  function draw(figure) {
    const box = document.getElementById(figure.id);
    const data = colored(figure.data).map((trace) => ({ ...trace, visible: !hidden.has(trace.name) || !figure.at_end }));
    const options = { displayModeBar: false, doubleClick: false, showTips: false };
    return Plotly.react(box, data, layoutOf(figure, box), options).then(() => { box.dataset.drawn = "yes"; });
  }

  const drawAll = () => Promise.all(figures.map(draw));

  // A technique's lines on or off in the charts of the training.
  function toggle(button) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    if (shown) hidden.delete(button.dataset.curve);
    else hidden.add(button.dataset.curve);
    figures.filter((figure) => figure.at_end).forEach(draw);
  }

  function start() {
    let width = document.documentElement.clientWidth, waiting = 0;
    drawAll();
    window.addEventListener("resize", () => {
      if (document.documentElement.clientWidth === width) return;
      width = document.documentElement.clientWidth;
      clearTimeout(waiting);
      waiting = setTimeout(drawAll, 100);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    for (const button of document.querySelectorAll("[data-curve]")) {
      button.addEventListener("click", () => toggle(button));
    }
  }

  return { start, drawAll };
})();

CHARTS.start();
