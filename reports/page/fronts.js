"use strict";
// The interactive fronts. Names from records are escaped, because plotly reads a little markup in its labels.
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = page.json("charts");

function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function percent(value, digits = 2) {
  return value === null ? "not measured" : `${value.toFixed(digits)} %`;
}

function label(point, variant, chart) {
  const cost = point.cost.approximate;
  const tested = chart.arithmetics.map((it) => `${escaped(it.name)} ${percent(point.tested[it.name])}`);
  return [
    `<b>${escaped(variant)}</b>${point.best ? ", best of its run on validation" : ""}`,
    escaped(point.label),
    ...wrapped(point.summary),
    ...wrapped(`circuits: ${point.circuits}`),
    `test: ${tested.join(", ")}`,
    `validation: ${percent(point.validation)}`,
    `${chart.cost}: ${cost === null ? "not measured" : cost.toPrecision(4) + " " + escaped(chart.unit)} per inference, approximate`,
    `saved: ${percent(point.saved[1], 1)} of exact int8, ${percent(point.saved[0], 1)} of fp32`,
  ].join("<br>");
}

function wrapped(text, width = 56) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length >= width) lines.push(word.slice(0, 2 * width));
    else lines[lines.length - 1] = last ? `${last} ${word}` : word.slice(0, 2 * width);
  }
  return lines.map(escaped);
}

// Of points [cost, accuracy, …] those that no other beats, by cost.
function front(points) {
  let best = -Infinity;
  return [...points]
    .sort((one, other) => one[0] - other[0] || other[1] - one[1])
    .filter((point) => point[1] > best && ((best = point[1]), true));
}

function traces(chart, choice) {
  const colours = getComputedStyle(document.documentElement);
  const ground = colours.getPropertyValue("--card").trim(), ink = colours.getPropertyValue("--ink").trim();
  return chart.variants.flatMap((variant, at) => {
    const shown = variant.points.filter((point) => choice.accuracy(point) !== null && choice.cost(point) !== null);
    const places = shown.map((point) => [choice.cost(point), choice.accuracy(point)]);
    const steps = front(places);
    const colour = variant.colour === "#000000" ? ink : variant.colour;
    const line = {
      x: steps.map((step) => step[0]), y: steps.map((step) => step[1]), mode: "lines", hoverinfo: "skip",
      line: { color: colour, dash: variant.dash, shape: "hv", width: 1.75 }, legendgroup: String(at), showlegend: false,
    };
    const marks = {
      x: places.map((place) => place[0]), y: places.map((place) => place[1]), mode: "markers", name: escaped(variant.name),
      hovertext: shown.map((point) => label(point, variant.name, chart)), hoverinfo: "text", customdata: shown,
      marker: { color: colour, symbol: variant.symbol, size: 10, line: { color: dark.matches ? ink : ground, width: 1 } }, legendgroup: String(at),
    };
    return [line, marks];
  });
}

// Costs that lie far apart can be distinguished on a logarithmic axis only.
function wide(chart, choice) {
  const costs = chart.variants.flatMap((variant) => variant.points.map(choice.cost)).filter((cost) => cost > 0);
  return Math.max(...costs) > 30 * Math.min(...costs);
}

function layout(chart, choice, width) {
  const colours = getComputedStyle(document.documentElement);
  const of = (name) => colours.getPropertyValue(name).trim();
  const words = chart.arithmetics.find((it) => it.name === choice.arithmetic).words;
  const axis = { gridcolor: of("--line"), zeroline: false, automargin: true, linecolor: of("--line"), title: { standoff: 12 } };
  return {
    paper_bgcolor: of("--card"), plot_bgcolor: of("--card"), font: { family: "system-ui, sans-serif", size: 13, color: of("--ink") },
    autosize: true, margin: { t: 40, r: 16, b: 48, l: 56 }, hovermode: "closest", dragmode: width < 500 ? false : "zoom",
    hoverlabel: { bgcolor: of("--ground"), bordercolor: of("--ink"), align: "left", font: { family: "system-ui, sans-serif", size: width < 500 ? 10 : 12, color: of("--ink") } },
    showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    xaxis: { ...axis, title: { ...axis.title, text: `${chart.cost}, ${escaped(chart.unit)} per inference,${width < 500 ? "<br>" : " "}${escaped(words)}` }, type: wide(chart, choice) ? "log" : "linear" },
    yaxis: { ...axis, title: { ...axis.title, text: `${choice.images === "tested" ? "test" : "validation"} accuracy, %` } },
  };
}

function chosen(section) {
  const images = section.querySelector("[data-role=images]").value;
  const select = section.querySelector("[data-role=arithmetic]");
  select.disabled = images === "validation";
  const arithmetic = select.disabled ? "approximate" : select.value;
  const accuracy = (point) => (images === "tested" ? point.tested[arithmetic] : point.validation);
  return { images, arithmetic, accuracy, cost: (point) => point.cost[arithmetic] };
}

function draw(holder) {
  const chart = charts[Number(holder.dataset.chart)], section = holder.closest("section"), choice = chosen(section);
  const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
  const points = chart.variants.flatMap((variant) => variant.points);
  const lacking = points.filter((point) => choice.accuracy(point) === null).length;
  const said = [];
  if (choice.images === "validation") said.push("Validation accuracy is measured in approximate arithmetic only, after a brief training.");
  if (lacking) said.push(`${lacking} of ${points.length} finalists were not measured so, and are not shown.`);
  page.text(section.querySelector(".chart-note"), said.join(" "));
  return Plotly.react(holder, traces(chart, choice), layout(chart, choice, holder.clientWidth), options);
}

const holders = [...document.querySelectorAll("[data-chart]")];
for (const holder of holders) {
  draw(holder).then(() => holder.on("plotly_click", (event) => {
    const point = event.points[0].customdata;
    if (point) page.show(point.network, point.run, point.label);
  }));
  for (const select of holder.closest("section").querySelectorAll("select")) select.addEventListener("change", () => draw(holder));
}
dark.addEventListener("change", () => holders.forEach(draw));
page.open();
