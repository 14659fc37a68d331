"use strict";
// Where the labels of a chart go: near their point, on no other label, point or bar.

const LABELS = (() => {
  const FONT_SIZE = 12, LINE = 15, PAD = 3, POINT = 8;
  const FREE = 16; // a label as near as this needs no line to its point
  // Sides of the point, the best first: how far the box lies off it in halves of its size.
  const SIDES = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1],
    [0.6, -1], [0.6, 1], [-0.6, -1], [-0.6, 1], [1, -0.5], [1, 0.5], [-1, -0.5], [-1, 0.5]];
  const REACHES = [12, 20, 32, 48, 68, 92];
  const ruler = document.createElement("canvas").getContext("2d");

  function sizeOf(lines, family) {
    ruler.font = `600 ${FONT_SIZE}px ${family}`;
    const width = Math.max(...lines.map((line) => ruler.measureText(line).width));
    return { width: width + 2 * PAD, height: lines.length * LINE + PAD };
  }

  function overlap(a, b) {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    return width > 0 && height > 0 ? width * height : 0;
  }

  function boxAround(x, y, width, height) {
    return { left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 };
  }

  function candidate(point, size, [right, down], reach) {
    const length = Math.hypot(right, down);
    const x = point.x + (right / length) * reach + (right * size.width) / 2;
    const y = point.y + (down / length) * reach + (down * size.height) / 2;
    return boxAround(x, y, size.width, size.height);
  }

  // Small boxes along the line from a point to its label, which is drawn when the label is far.
  function leader(point, box) {
    const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    const parts = [];
    for (let part = 1; part < 20; part += 1) {
      const at = boxAround(point.x + ((x - point.x) * part) / 20, point.y + ((y - point.y) * part) / 20, 4, 4);
      if (overlap(at, box) === 0 && part > 2) parts.push(at);
    }
    return parts;
  }

  function cost(box, own, { points, taken, leaders, lines, area }, reach) {
    const inside = box.left >= 0 && box.top >= 0 && box.right <= area.width && box.bottom <= area.height;
    if (!inside) return Infinity;
    let sum = 0;
    for (const part of leaders) sum += 40 * overlap(box, part);
    for (const part of reach > FREE ? leader(own, box) : []) {
      for (const other of taken) sum += 40 * overlap(part, other);
      for (const point of points) {
        if (point !== own) sum += 3 * overlap(part, boxAround(point.x, point.y, 2 * POINT, 2 * POINT));
      }
    }
    for (const other of taken) sum += 1000 * overlap(box, other);
    for (const point of points) {
      if (point !== own) sum += 200 * overlap(box, boxAround(point.x, point.y, 2 * POINT, 2 * POINT));
    }
    for (const line of lines) sum += 2 * overlap(box, line);
    return sum;
  }

  function best(point, size, around) {
    let found = null;
    for (const reach of REACHES) {
      for (const [rank, side] of SIDES.entries()) {
        const box = candidate(point, size, side, reach);
        const price = cost(box, point, around, reach) + 3 * reach + rank;
        if (price < (found ? found.price : Infinity)) found = { box, price, reach };
      }
    }
    return found;
  }

  // Labels of crowded points first: the others have room anywhere.
  function order(points) {
    const crowd = (p) => points.reduce((sum, q) => sum + 1 / (20 + Math.hypot(p.x - q.x, p.y - q.y)), 0);
    return [...points].sort((a, b) => crowd(b) - crowd(a));
  }

  // Returns a box for each point; null when some would lie on another label or point.
  function tryAll(points, texts, lines, area, family) {
    const taken = [], leaders = [], places = new Map();
    for (const point of order(points)) {
      const around = { points, taken, leaders, lines, area };
      const found = best(point, sizeOf(texts.get(point), family), around);
      if (found === null || found.price >= 1000) return null;
      taken.push(found.box);
      if (found.reach > FREE) leaders.push(...leader(point, found.box));
      places.set(point, found);
    }
    return places;
  }

  // Names where all fit; else names for the roomiest points and numbers for the rest.
  function place(points, lines, area, family) {
    const named = order(points).filter((p) => p.lines).reverse();
    for (let names = named.length; names >= 0; names -= 1) {
      const full = new Set(named.slice(0, names));
      const texts = new Map(points.map((p) => [p, full.has(p) ? p.lines : [p.number]]));
      const places = tryAll(points, texts, lines, area, family);
      if (places !== null) return points.map((p) => ({ point: p, text: texts.get(p), ...places.get(p) }));
    }
    return points.map((p) => ({ point: p, text: [p.number], ...fallback(p) }));
  }

  function fallback(point) {
    return { box: boxAround(point.x + 14, point.y - 14, 14, LINE), reach: 12, price: 0 };
  }

  // Numbers at the right ends of lines; those of lines that end side by side are moved apart.
  function stack(points, area) {
    const groups = [];
    for (const point of [...points].sort((a, b) => a.x - b.x)) {
      const group = groups.at(-1);
      if (group && point.x - group.at(-1).x < 24) group.push(point);
      else groups.push([point]);
    }
    return groups.flatMap((group) => spread(group, area));
  }

  function spread(points, area) {
    const sorted = [...points].sort((a, b) => a.y - b.y);
    const step = Math.min(LINE, area.height / Math.max(1, sorted.length));
    let last = -Infinity;
    for (const point of sorted) last = point.shown = Math.max(point.y, last + step);
    last = area.height - step / 2;
    for (const point of sorted.reverse()) {
      point.shown = Math.min(point.shown, last);
      last = point.shown - step;
    }
    return sorted;
  }

  return { place, stack, FONT_SIZE, FREE };
})();
