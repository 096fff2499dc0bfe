"use strict";
// What a chart is drawn with: SVG elements, axes with round numbers, and the shapes of marks.
const SVG_NAMES = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG_NAMES, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Round numbers in [low, high], about so many.
function ticks(low, high, about) {
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((it) => it * power >= raw) * power;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high * (1 + 1e-12); at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

// 1, 2 and 5 times powers of ten in [low, high]; of many, powers alone.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const digit of [1, 2, 5]) found.push(Number((digit * 10 ** power).toPrecision(6)));
  const inside = found.filter((it) => it >= low && it <= high);
  return inside.length > 8 ? inside.filter((it) => Math.log10(it) % 1 === 0) : inside;
}

// A scale from values to pixels between start and end, a little wider than the values.
function scale(values, start, end, logarithmic, about) {
  let low = Math.min(...values), high = Math.max(...values);
  const turn = logarithmic ? Math.log10 : (it) => it;
  const pad = 0.06 * (turn(high) - turn(low)) || 0.05 * Math.abs(turn(high)) || 1;
  const [from, to] = [turn(low) - pad, turn(high) + pad];
  [low, high] = logarithmic ? [10 ** from, 10 ** to] : [low >= 0 ? Math.max(0, from) : from, to];
  const bottom = turn(low), at = (value) => start + ((turn(value) - bottom) / (turn(high) - bottom)) * (end - start);
  return { at, ticks: logarithmic ? logTicks(low, high) : ticks(low, high, about), low, high };
}

function told(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

const polygon = (points) => `M${points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join("L")}Z`;
const around = (corners, size, turn = 0) =>
  polygon([...Array(corners).keys()].map((at) => {
    const angle = (2 * Math.PI * at) / corners + turn;
    return [size * Math.sin(angle), -size * Math.cos(angle)];
  }));
const cross = (size, turn) =>
  polygon([[-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1]].map(([x, y]) => {
    const unit = size / 3;
    return [unit * (x * Math.cos(turn) - y * Math.sin(turn)), unit * (x * Math.sin(turn) + y * Math.cos(turn))];
  }));
const SHAPES = {
  circle: (size) => `M${-size},0a${size},${size} 0 1,0 ${2 * size},0a${size},${size} 0 1,0 ${-2 * size},0Z`,
  square: (size) => around(4, 1.25 * size, Math.PI / 4),
  "triangle-up": (size) => around(3, 1.3 * size),
  "triangle-down": (size) => around(3, 1.3 * size, Math.PI),
  "triangle-left": (size) => around(3, 1.3 * size, -Math.PI / 2),
  "triangle-right": (size) => around(3, 1.3 * size, Math.PI / 2),
  diamond: (size) => around(4, 1.3 * size),
  "diamond-tall": (size) => polygon([[0, -1.5 * size], [0.8 * size, 0], [0, 1.5 * size], [-0.8 * size, 0]]),
  cross: (size) => cross(1.2 * size, 0),
  x: (size) => cross(1.2 * size, Math.PI / 4),
  hexagon: (size) => around(6, 1.15 * size),
  pentagon: (size) => around(5, 1.2 * size),
  star: (size) => polygon([...Array(10).keys()].map((at) => {
    const reach = (at % 2 ? 0.55 : 1.4) * size;
    return [reach * Math.sin((Math.PI * at) / 5), -reach * Math.cos((Math.PI * at) / 5)];
  })),
};
const shape = (symbol, size) => (SHAPES[symbol] || SHAPES.circle)(size);
