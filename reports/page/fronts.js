"use strict";
// The interactive fronts: a mark per finalist, a step line through those that no other of the method beats.
const charts = page.json("charts");
const MARGIN = { left: 52, right: 14, top: 12, bottom: 46 };

function percent(value) {
  return value === null ? "not measured" : `${value.toFixed(2)} %`;
}

// What a mark says when it is pointed at: lines of plain text.
function label(point, variant, chart) {
  const lines = [variant + (point.best ? ", best of its run on validation" : ""), point.label];
  if (point.summary) lines.push(point.summary);
  if (point.circuits) lines.push(`circuits: ${point.circuits}`);
  lines.push(`test error: ${chart.arithmetics.map((it) => `${it.name} ${percent(point.tested[it.name])}`).join(", ")}`);
  if (chart.validation) lines.push(`validation error: ${percent(point.validation)}`);
  const cost = point.cost.approximate;
  lines.push(`${chart.cost}: ${cost === null ? "not measured" : `${told(cost)} ${chart.unit}`} per inference, approximate`);
  const saved = [[point.saved[1], "exact int8"], [point.saved[0], "fp32"]].filter(([share]) => share !== null);
  if (saved.length) lines.push(`saved: ${saved.map(([share, of]) => `${told(share)} % of ${of}`).join(", ")}`);
  return lines;
}

// Of points [cost, error, …] those that no other beats, by cost.
function front(points) {
  let best = Infinity;
  return [...points]
    .sort((one, other) => one[0] - other[0] || one[1] - other[1])
    .filter((point) => point[1] < best && ((best = point[1]), true));
}

function chosen(section, chart) {
  const images = section.querySelector("[data-role=images]")?.value || "tested";
  const select = section.querySelector("[data-role=arithmetic]");
  if (select) select.disabled = images === "validation";
  const arithmetic = images === "validation" || !select ? "approximate" : select.value;
  const error = (point) => (images === "tested" ? point.tested[arithmetic] : point.validation);
  return { images, words: chart.arithmetics.find((it) => it.name === arithmetic).words, error, cost: (point) => point.cost[arithmetic] };
}

// The variants that are shown, each with its points [cost, error, point].
function shownSeries(chart, choice, hidden) {
  return chart.variants.map((variant, at) => ({
    variant, at,
    points: hidden.has(at) ? [] : variant.points
      .filter((point) => choice.error(point) !== null && choice.cost(point) !== null)
      .map((point) => [choice.cost(point), choice.error(point), point]),
  }));
}

function draw(holder) {
  const chart = charts[Number(holder.dataset.chart)], section = holder.closest("section"), choice = chosen(section, chart);
  const series = shownSeries(chart, choice, holder.hiddenVariants), places = series.flatMap((it) => it.points);
  const width = holder.clientWidth, height = holder.clientHeight;
  say(section, chart, choice);
  holder.drawn = { series, choice };
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  if (places.length && width > 100) {
    const costs = places.map((it) => it[0]), lowest = Math.min(...costs);
    const x = scale(costs, MARGIN.left, width - MARGIN.right, lowest > 0 && Math.max(...costs) > 30 * lowest, Math.max(2, width / 110));
    const y = scale(places.map((it) => it[1]), height - MARGIN.bottom, MARGIN.top, false, 5);
    axes(root, x, y, width, height, chart, choice);
    for (const it of series) line(root, it, x, y, width);
    for (const it of series) marks(root, it, x, y);
  }
  holder.querySelector("svg")?.remove();
  holder.prepend(root);
  holder.marks = [...root.querySelectorAll(".mark")];
  point(holder, null);
}

function say(section, chart, choice) {
  const points = chart.variants.flatMap((variant) => variant.points);
  const lacking = points.filter((it) => choice.error(it) === null).length;
  const said = [];
  if (choice.images === "validation") said.push("Validation error is measured in approximate arithmetic only, after a brief training.");
  if (lacking) said.push(`${lacking} of ${points.length} finalists were not measured so, and are not shown.`);
  page.text(section.querySelector(".chart-note"), said.join(" "));
}

function axes(root, x, y, width, height, chart, choice) {
  const bottom = height - MARGIN.bottom, right = width - MARGIN.right;
  const grid = svg("g", { class: "grid" }), text = svg("g", { class: "ticks" });
  for (const tick of x.ticks) {
    grid.append(svg("line", { x1: x.at(tick), x2: x.at(tick), y1: MARGIN.top, y2: bottom }));
    text.append(svg("text", { x: x.at(tick), y: bottom + 16, "text-anchor": "middle" }, told(tick)));
  }
  for (const tick of y.ticks) {
    grid.append(svg("line", { x1: MARGIN.left, x2: right, y1: y.at(tick), y2: y.at(tick) }));
    text.append(svg("text", { x: MARGIN.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, told(tick)));
  }
  const middle = (MARGIN.top + bottom) / 2, words = width < 500 ? "" : ` ${choice.words}`;
  root.append(grid, text, svg("g", { class: "titles" },
    svg("text", { x: (MARGIN.left + right) / 2, y: height - 8, "text-anchor": "middle" }, `${chart.cost}, ${chart.unit} per inference${words}`),
    svg("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, `${choice.images === "tested" ? "test" : "validation"} error, %`)));
}

function line(root, { variant, at, points }, x, y, width) {
  const steps = front(points);
  if (!steps.length) return;
  let path = `M${x.at(steps[0][0]).toFixed(1)},${MARGIN.top}`;
  for (const [cost, error] of steps) path += `H${x.at(cost).toFixed(1)}V${y.at(error).toFixed(1)}`;
  root.append(svg("path", { class: "front", d: `${path}H${width - MARGIN.right}`, "data-variant": at, "stroke-dasharray": variant.dash, style: `stroke: ${variant.colour}` }));
}

function marks(root, { variant, at, points }, x, y) {
  for (const [cost, error, found] of points) {
    const mark = svg("path", { class: "mark", d: shape(variant.symbol, found.best ? 6 : 4.5), transform: `translate(${x.at(cost).toFixed(1)} ${y.at(error).toFixed(1)})`, "data-variant": at, style: `fill: ${variant.colour}` });
    mark.point = found;
    mark.variant = variant.name;
    root.append(mark);
  }
}

// -- pointing: by mouse, finger, or the arrow keys ---------------------------------------------------------------------

function point(holder, mark) {
  const tip = holder.querySelector(".tip");
  holder.querySelector(".mark.pointed")?.classList.remove("pointed");
  holder.pointed = mark;
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("pointed");
  tip.replaceChildren(...label(mark.point, mark.variant, charts[Number(holder.dataset.chart)]).map((text) => page.text(document.createElement("div"), text)));
  const box = holder.getBoundingClientRect(), at = mark.getBoundingClientRect();
  const left = at.left - box.left + 14, top = at.top - box.top + 14;
  tip.style.left = `${Math.max(4, Math.min(left, box.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${top + tip.offsetHeight > box.height ? Math.max(4, top - tip.offsetHeight - 24) : top}px`;
}

function nearest(holder, event) {
  let best = null, least = 22;
  for (const mark of holder.marks) {
    const box = mark.getBoundingClientRect();
    const far = Math.hypot(event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
    if (far < least) [best, least] = [mark, far];
  }
  return best;
}

function step(holder, by) {
  const ordered = [...holder.marks].sort((one, other) => one.getBoundingClientRect().left - other.getBoundingClientRect().left);
  const at = ordered.indexOf(holder.pointed);
  point(holder, ordered[(at + by + ordered.length) % ordered.length] || null);
}

function open(mark) {
  if (mark && mark.point.network !== null) page.show(mark.point.network, mark.point.run, mark.point.label);
}

const holders = [...document.querySelectorAll("[data-chart]")];
for (const holder of holders) {
  holder.hiddenVariants = new Set();
  holder.addEventListener("pointermove", (event) => point(holder, nearest(holder, event)));
  holder.addEventListener("pointerleave", () => point(holder, null));
  holder.addEventListener("blur", () => point(holder, null));
  holder.addEventListener("click", (event) => open(nearest(holder, event)));
  holder.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by) step(holder, by);
    else if (event.key === "Enter" && holder.pointed) open(holder.pointed);
    else return;
    event.preventDefault();
  });
  const section = holder.closest("section");
  for (const select of section.querySelectorAll("select")) select.addEventListener("change", () => draw(holder));
  for (const button of section.querySelectorAll("[data-legend]")) {
    const at = Number(button.dataset.legend), variant = charts[Number(holder.dataset.chart)].variants[at];
    button.prepend(svg("svg", { width: 30, height: 14, viewBox: "0 0 30 14", "aria-hidden": "true" },
      svg("path", { class: "front", d: "M0,7H30", "stroke-dasharray": variant.dash, style: `stroke: ${variant.colour}` }),
      svg("path", { class: "mark", d: shape(variant.symbol, 4.5), transform: "translate(15 7)", style: `fill: ${variant.colour}` })));
    button.addEventListener("click", () => {
      const shown = holder.hiddenVariants.delete(at) || !holder.hiddenVariants.add(at);
      button.setAttribute("aria-pressed", String(shown));
      draw(holder);
    });
  }
  new ResizeObserver(() => draw(holder)).observe(holder);
}
page.open();
