/* The page of compared GPUs: a metric of one phase over shapes or GPUs, FLOP/s against FLOP/J, and the numbers. */
const COLOURS = { fp32: "#0072B2", tf32: "#009E73", bf16: "#E69F00", fp16: "#AA4499", fp8: "#D55E00", fp8_rowwise: "#56B4E9" };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "triangle-left", "triangle-right"];
const SIGNS = "●■◆▲▼✚✖★◀▶";
const ALL = "all shapes", MOST_LINES = 400;

const comparison = () => DATA.comparisons.find(each => each.title === controls.comparison.value) || DATA.comparisons[0];
const metric = () => DATA.metrics.find(each => each.name === controls.metric.value);
const rowsOf = part => part.rows.filter(row => row.phase === controls.phase.value &&
  (controls.shape.value === ALL || row.shape === controls.shape.value));
const valueOf = (row, name) => row.values[name].value;

/** After a change: offer what exists for the choices before it, then draw. */
function refresh(changed, quietly) {
  const part = comparison();
  if (changed === "comparison") {
    fill(controls.phase, plain(part.rows.map(row => row.phase)).sort((a, b) => part.phases.indexOf(a[0]) - part.phases.indexOf(b[0])));
  }
  if (["comparison", "phase"].includes(changed)) {
    const rows = part.rows.filter(row => row.phase === controls.phase.value);
    const shapes = part.shapes.filter(shape => rows.some(row => row.shape === shape));
    fill(controls.shape, plain(shapes.length > 1 ? [ALL, ...shapes] : shapes));
    fill(controls.metric, DATA.metrics.filter(each => rows.some(row => valueOf(row, each.name) !== null)).map(each => [each.name, each.short]));
  }
  if (!quietly) draw();
}

const told = row => [row.gpu, row.precision, row.shape].join(" · ") + (row.source === "published" ? " (published)" : "");

/** Value with unit, its error, and what the audit says, for hover texts. */
function hover(row, each, unit) {
  const entry = row.values[each.name];
  if (entry.value === null) return `${safe(told(row))}<br>${safe(entry.missing)}`;
  const late = !entry.above ? "" : entry.error === null ? "<br>error not known: too few repeats" : "<br>error above the target";
  const audit = row.findings.length ? "<br>audit: " + safe(row.findings.map(readable).join(", ")) : "";
  return `${safe(told(row))}<br>${number(entry.value / unit.factor, 4)} ${unit.label} ${percent(entry.error)}${late}${audit}`;
}

/** The unit for all of some values: that of the geometric middle on a log scale, of the largest on a linear one. */
function unitOf(each, values, log) {
  const sizes = values.map(Math.abs).filter(Boolean);
  if (!sizes.length) return unitFor(each.unit, 1);
  return unitFor(each.unit, log ? Math.sqrt(Math.min(...sizes) * Math.max(...sizes)) : Math.max(...sizes));
}

function valueAxis(each, unit, values, log, reached = values) {
  const scaled = values.map(value => value / unit.factor), ends = log ? closeEnds(reached.map(value => value / unit.factor), true) : null;
  const ticks = ends ? roundTicks(...ends, true) : log ? roundTicks(.9 * Math.min(...scaled), 1.1 * Math.max(...scaled), true) : roundTicks(0, 1.05 * Math.max(...scaled), false);
  return { title: { text: `${each.short} (${unit.label})` }, type: log ? "log" : "linear", tickvals: ticks, ticktext: ticks.map(String),
    zeroline: false, ...rangeOf(ends, true), ...(log ? {} : { rangemode: "tozero" }) };
}

/** Rows by GPU, precision and source, in the order of the comparison. */
function series(part, rows) {
  return part.gpus.flatMap(gpu => Object.keys(COLOURS).flatMap(precision => ["measured", "published"].map(source =>
    ({ gpu, precision, source, rows: rows.filter(row => row.gpu === gpu && row.precision === precision && row.source === source) }))))
    .filter(one => one.rows.length);
}

const look = (part, one) => ({
  symbol: SYMBOLS[part.gpus.indexOf(one.gpu) % SYMBOLS.length] + (one.source === "published" ? "-open" : ""), size: 9, color: COLOURS[one.precision],
});
const nameOf = one => safe(`${one.gpu} ${one.precision}${one.source === "published" ? " published" : ""}`);

/** Marks of the audit over points, one trace for each severity that occurs. */
function auditTraces(points) {
  return ["impossible", "implausible"].map(severity => {
    const marked = points.filter(point => point.row.severity === severity);
    const [symbol, color] = severity === "impossible" ? ["x-thin-open", "#d62728"] : ["circle-open", "#ff7f0e"];
    return marked.length ? { type: "scatter", mode: "markers", name: "audit: " + severity, x: marked.map(p => p.x), y: marked.map(p => p.y),
      hoverinfo: "skip", marker: { symbol, size: 14, color, line: { width: 2, color } } } : null;
  }).filter(Boolean);
}

/** Whether any error that was asked for is not known decides on the words of the whole page. */
const LATE = `error above the target${DATA.comparisons.some(part => part.rows.some(row => Object.values(row.values).some(entry => entry.above && entry.error === null))) ? " or not known" : ""}`;

/** Values above the target of their error, as a dark corner at the point. */
function lateTrace(points, name) {
  const late = points.filter(point => point.above);
  return late.length ? [{ type: "scatter", mode: "markers", name, x: late.map(p => p.x), y: late.map(p => p.y), hoverinfo: "skip",
    marker: { symbol: "triangle-se", size: 6, color: shade("ink"), line: { width: 1, color: shade("edge") } } }] : [];
}

/** The metric over shapes, or over GPUs where one shape is chosen; places are numbers, so that points stand side by side. */
function drawDots(part, rows, log) {
  const each = metric(), overShapes = controls.shape.value === ALL;
  const names = overShapes ? part.shapes.filter(shape => rows.some(row => row.shape === shape)) : part.gpus.filter(gpu => rows.some(row => row.gpu === gpu));
  const seen = rows.map(row => valueOf(row, each.name)).filter(value => value !== null);
  if (!seen.length) return false;
  const unit = unitOf(each, seen, log), groups = series(part, rows);
  const slots = overShapes ? groups.map(nameOf) : unique(groups.map(one => one.precision + one.source));
  const points = groups.flatMap(one => one.rows.filter(row => valueOf(row, each.name) !== null).map(row => {
    const entry = row.values[each.name], slot = slots.indexOf(overShapes ? nameOf(one) : one.precision + one.source);
    return { row, one, x: names.indexOf(overShapes ? row.shape : row.gpu) + .8 * ((slot + .5) / slots.length - .5), y: entry.value / unit.factor,
      error: entry.value * (entry.error || 0) / unit.factor, above: entry.above, text: hover(row, each, unit) };
  }));
  const traces = groups.map(one => {
    const own = points.filter(point => point.one === one);
    return { type: "scatter", mode: "markers", name: nameOf(one), x: own.map(p => p.x), y: own.map(p => p.y), text: own.map(p => p.text), hoverinfo: "text",
      error_y: { array: own.map(p => p.error), thickness: 1, width: 3 }, marker: look(part, one) };
  }).filter(trace => trace.x.length);
  traces.push(...auditTraces(points), ...lateTrace(points, LATE));
  const longest = 7 * Math.max(...names.map(name => name.length)) + 12;
  const step = Math.ceil(names.length * longest / (element("dots").clientWidth - 70)), ticks = names.map((_, i) => i).filter(i => i % step === 0);
  plot("dots", traces, {
    margin: { l: 62, r: 10, t: 30, b: 50 }, showlegend: false, hovermode: "closest",
    xaxis: { range: [-.5, names.length - .5], tickvals: ticks, ticktext: ticks.map(i => safe(names[i])), zeroline: false, showgrid: false, tickangle: 0,
      title: { text: overShapes ? part.shape_title : safe(`GPU, ${controls.shape.value}`) } },
    yaxis: valueAxis(each, unit, seen, log, points.flatMap(p => [p.y - p.error, p.y + p.error].map(end => end * unit.factor))),
    shapes: names.slice(1).length < 20 ? names.slice(1).map((_, i) => ({ type: "line", x0: i + .5, x1: i + .5, y0: 0, y1: 1, yref: "paper", line: { color: shade("faint"), width: 1 } })) : [],
  });
  return true;
}

/** FLOP/s against FLOP/J: comparable over shapes, since both are per work. */
function drawRates(part, rows) {
  const [rate, efficiency] = ["flops_per_s", "flops_per_j"].map(name => DATA.metrics.find(each => each.name === name));
  const whole = rows.filter(row => valueOf(row, rate.name) > 0 && valueOf(row, efficiency.name) > 0);
  if (!whole.length) return false;
  const [xs, ys] = [rate, efficiency].map(each => whole.map(row => valueOf(row, each.name)));
  const units = [unitOf(rate, xs, true), unitOf(efficiency, ys, true)];
  const points = series(part, whole).flatMap(one => one.rows.map(row => ({
    row, one, x: valueOf(row, rate.name) / units[0].factor, y: valueOf(row, efficiency.name) / units[1].factor,
    above: row.values[efficiency.name].above || row.values[rate.name].above,
    text: `${hover(row, rate, units[0])}<br>${hover(row, efficiency, units[1]).split("<br>").slice(1).join("<br>")}`,
  })));
  const traces = series(part, whole).map(one => {
    const own = points.filter(point => point.row.gpu === one.gpu && point.row.precision === one.precision && point.row.source === one.source);
    const bar = (key, side) => ({ array: own.map(p => p[side] * (p.row.values[key].error || 0)), thickness: 1, width: 3 });
    return { type: "scatter", mode: "markers", name: nameOf(one), x: own.map(p => p.x), y: own.map(p => p.y), text: own.map(p => p.text), hoverinfo: "text",
      error_x: bar(rate.name, "x"), error_y: bar(efficiency.name, "y"), marker: look(part, one) };
  });
  traces.push(...auditTraces(points), ...lateTrace(points, LATE));
  plot("rates", traces, {
    margin: { l: 62, r: 10, t: 30, b: 50 }, showlegend: false, hovermode: "closest",
    title: { text: "upper right is better", font: { size: 13 }, x: .08, y: .985, yanchor: "top" },
    xaxis: valueAxis(rate, units[0], xs, true), yaxis: valueAxis(efficiency, units[1], ys, true),
  });
  return true;
}

/** What markers and colours mean, of what is drawn only. */
function drawLegend(part, rows) {
  const each = metric(), drawn = rows.filter(row => valueOf(row, each.name) !== null), has = test => drawn.some(test);
  const entries = part.gpus.map((gpu, i) => [SIGNS[i % SIGNS.length], gpu, shade("ink"), has(row => row.gpu === gpu)]);
  Object.entries(COLOURS).forEach(([name, color]) => entries.push(["▬", name, color, has(row => row.precision === name)]));
  entries.push(["○", "hollow: published by flopmetrics", shade("ink"), has(row => row.source === "published")]);
  entries.push(["✕", "audit: impossible", "#d62728", has(row => row.severity === "impossible")]);
  entries.push(["◯", "audit: implausible", "#ff7f0e", has(row => row.severity === "implausible")]);
  entries.push(["◢", LATE, shade("ink"), has(row => row.values[each.name].above)]);
  element("legend").replaceChildren(...entries.filter(entry => entry[3]).map(([sign, text, color]) => {
    const box = node("span"), mark = node("span", sign + " ");
    mark.style.color = color;
    box.append(mark, text);
    return box;
  }));
}

/** What the bars are intervals of: of the type of GPU, of one board, of one window. */
const intervalOf = part => part.intervals[metric().error_of];

function drawTable(part, rows, log) {
  const each = metric();
  const unit = unitOf(each, rows.map(row => valueOf(row, each.name)).filter(value => value !== null), log);
  const lines = rows.slice(0, MOST_LINES).map(row => {
    const entry = row.values[each.name], kind = entry.above ? "above" : "";
    const [value, error] = entry.value === null ? [{ text: entry.missing, kind: "text" }, ""] :
      [{ text: number(entry.value / unit.factor), kind }, { text: percent(entry.error), kind }];
    return [row.gpu + (row.source === "published" ? "*" : ""), row.precision, row.shape, value, error, { text: row.severity, kind: "text" }];
  });
  const said = [`${each.title} in ${unit.label}; ±: 95 % interval ${intervalOf(part)}`.trimEnd()];
  if (rows.some(row => row.values[each.name].above)) said.push(`slanted: ${LATE}`);
  if (rows.some(row => row.source === "published")) said.push("*: published by flopmetrics");
  if (rows.length > MOST_LINES) said.push(`the first ${MOST_LINES} of ${rows.length}; the CSV has all`);
  fillTable(said.join("; "), ["GPU", "precision", "shape", unit.label, "±", "audit"], lines, 3);
}

const HEADER = ["comparison", "source", "gpu", "precision", "shape", "phase", "metric", "unit", "value", "rel_error", "above_target", "missing", "findings"];
const csvRows = (part, rows, metrics) => rows.flatMap(row => metrics.map(each => {
  const entry = row.values[each.name];
  return [part.title, row.source, row.gpu, row.precision, row.shape, row.phase, each.name, each.unit === "%" ? "1" : each.unit, entry.value,
    entry.error, entry.value === null ? null : entry.above ? "yes" : "no", entry.missing || "", row.findings.join(" ")];
}));

function draw() {
  const part = comparison(), rows = rowsOf(part), each = metric(), log = controls.scale.value === "log";
  say("title", each ? `${each.title}, ${phaseName(controls.phase.value)}` : "No values of this phase");
  const interval = intervalOf(part);
  say("subtitle", `${part.title} · ${part.gpus.join(", ")}${interval ? ` · bars: 95 % intervals ${interval}` : ""}`);
  const missing = {};
  rows.forEach(row => { const why = each && row.values[each.name].missing; if (why) missing[why] = (missing[why] || 0) + 1; });
  say("remarks", Object.keys(missing).length ? "Without a value: " + Object.entries(missing).map(([why, count]) => `${why} (${count})`).join(", ") : "");
  element("numbers").hidden = !each;
  if (!each) { element("legend").replaceChildren(); return show([]); }
  drawTable(part, rows, log);
  drawLegend(part, rows);
  // what will not be drawn must not take half of the width from what is
  const hasRates = rows.some(row => valueOf(row, "flops_per_s") > 0 && valueOf(row, "flops_per_j") > 0);
  show(hasRates ? ["dots", "rates"] : ["dots"]);
  show([["dots", drawDots(part, rows, log)], ["rates", hasRates && drawRates(part, rows)]].filter(([, drawn]) => drawn).map(([id]) => id));
}

nameWindow("flopray: GPUs compared");
addPlots("dots", "rates");
addControl("comparison", "comparison", plain(DATA.comparisons.map(each => each.title)), refresh);
addControl("phase", "phase", [], refresh);
addControl("shape", "shape", [], refresh);
addControl("metric", "metric", [], refresh);
addControl("scale", "scale", [["log", "log"], ["linear", "linear"]], refresh);
addAction("this view as CSV", () => download(`${comparison().title}-${controls.phase.value}`, csvText(HEADER, csvRows(comparison(), rowsOf(comparison()), [metric()]))));
addAction("everything as CSV", () => download("flopray-gpus", csvText(HEADER, DATA.comparisons.flatMap(part => csvRows(part, part.rows, DATA.metrics)))));
refresh("comparison", true);
applyView(refresh);
window.addEventListener("hashchange", () => applyView(refresh));
redrawOnResize(draw);
