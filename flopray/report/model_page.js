/* The page of compared models: what a token costs over the size of a model, a line for each GPU and precision. */
const COLOURS = { fp32: "#0072B2", tf32: "#009E73", bf16: "#E69F00", fp16: "#AA4499", fp8: "#D55E00", fp8_rowwise: "#56B4E9" };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "triangle-left", "triangle-right"];

const group = () => DATA.groups.find(each => each.title === controls.group.value) || DATA.groups[0];
const metric = () => DATA.metrics.find(each => each.name === controls.metric.value);
const size = () => DATA.sizes.find(each => each.name === controls.size.value);
const rowsOf = part => part.rows.filter(row => row.phase === controls.phase.value);

/** After a change: offer what exists for the choices before it, then draw. */
function refresh(changed, quietly) {
  const part = group();
  if (changed === "group") fill(controls.phase, plain(part.phases));
  if (["group", "phase"].includes(changed)) {
    const rows = rowsOf(part);
    fill(controls.metric, DATA.metrics.filter(each => rows.some(row => row.values[each.name].value !== null)).map(each => [each.name, each.short]));
    fill(controls.size, DATA.sizes.filter(each => rows.some(row => row.sizes[each.name] !== null)).map(each => [each.name, each.title]));
  }
  if (!quietly) draw();
}

const middle = values => Math.sqrt(Math.min(...values) * Math.max(...values));

function axis(title, unit, values) {
  const scaled = values.map(value => value / unit.factor), ticks = roundTicks(.8 * Math.min(...scaled), 1.25 * Math.max(...scaled), true);
  return { title: { text: unit.label ? `${title} (${unit.label})` : title }, type: "log", tickvals: ticks, ticktext: ticks.map(String), zeroline: false };
}

function hover(row, each, unit) {
  const entry = row.values[each.name], audit = row.severity ? `<br>audit: ${safe(row.severity)}` : "";
  const other = row.instead ? `<br>measured as ${safe(row.instead)}` : "";
  return `${safe(row.model)}<br>${safe(row.gpu)} ${row.precision}${other}<br>${number(entry.value / unit.factor, 4)} ${unit.label} ${percent(entry.error)}${audit}`;
}

function drawLines(part, rows) {
  const each = metric(), of = size();
  const there = rows.filter(row => row.values[each.name].value !== null && row.sizes[of.name] !== null);
  if (!there.length) return false;
  const xs = there.map(row => row.sizes[of.name]), ys = there.map(row => row.values[each.name].value);
  const across = unitFor(of.unit, middle(xs)), unit = unitFor(each.unit, middle(ys));
  const traces = part.gpus.flatMap(gpu => Object.keys(COLOURS).map(precision => {
    const own = there.filter(row => row.gpu === gpu && row.precision === precision).sort((a, b) => a.sizes[of.name] - b.sizes[of.name]);
    if (!own.length) return null;
    const values = own.map(row => row.values[each.name].value / unit.factor);
    return { type: "scatter", mode: "lines+markers", name: safe(`${gpu} ${precision}`), x: own.map(row => row.sizes[of.name] / across.factor), y: values,
      line: { color: COLOURS[precision], width: 1.5 }, text: own.map(row => hover(row, each, unit)), hoverinfo: "text",
      // hollow: measured in another execution
      marker: { symbol: own.map(row => SYMBOLS[part.gpus.indexOf(gpu) % SYMBOLS.length] + (row.instead ? "-open" : "")), size: 9, color: COLOURS[precision] },
      error_y: { type: "data", array: own.map((row, i) => (row.values[each.name].error || 0) * values[i]), thickness: 1, width: 3, color: COLOURS[precision] } };
  })).filter(Boolean);
  const { legend, bottom } = bottomLegend(traces.length, isNarrow());
  plot("lines", traces, { margin: { l: 70, r: 20, t: 20, b: bottom }, legend, xaxis: axis(of.title, across, xs), yaxis: axis(each.short, unit, ys) });
  return true;
}

const HEADER = ["comparison", "phase", "gpu", "precision", "model", "parameters", "flops_per_token", "metric", "unit", "value", "rel_error", "missing", "measured_as"];
const csvRows = (part, rows, metrics) => rows.flatMap(row => metrics.map(each => {
  const entry = row.values[each.name];
  return [part.title, row.phase, row.gpu, row.precision, row.model, row.sizes.parameters, row.sizes.flops_per_token, each.name, each.unit, entry.value, entry.error, entry.missing, row.instead];
}));

const shown = (value, unit) => { if (value === null) return "-"; const of = unitFor(unit, value); return `${number(value / of.factor)} ${of.label}`.trim(); };

function draw() {
  const part = group(), rows = rowsOf(part), each = metric();
  say("title", each ? `${each.title} by model, ${phaseName(controls.phase.value)}` : "No values of this phase");
  say("subtitle", [part.title, part.gpus.join(", "), part.bars].filter(Boolean).join(" · "));
  say("remarks", [part.no_energy, ...part.missing].filter(Boolean).join(" · "));
  element("numbers").hidden = !each;
  if (!each) return show([]);
  fillTable(`${each.title}; ±: half width of a 95 % interval`, ["model", "GPU", "precision", "parameters", "FLOP per token", each.short, "±"], rows.map(row => {
    const entry = row.values[each.name];
    return [row.instead ? `${row.model} (${row.instead})` : row.model, row.gpu, row.precision, shown(row.sizes.parameters, ""), shown(row.sizes.flops_per_token, "FLOP"),
      entry.value === null ? { text: entry.missing, kind: "text" } : shown(entry.value, each.unit), percent(entry.error)];
  }), 3);
  show(["lines"]);
  if (!drawLines(part, rows)) show([]);
}

nameWindow("flopray: models compared");
addPlots("lines");
addControl("group", "work", plain(DATA.groups.map(each => each.title)), refresh);
addControl("phase", "phase", [], refresh);
addControl("metric", "metric", [], refresh);
addControl("size", "over", [], refresh);
addAction("this view as CSV", () => download(`${group().title}-${controls.phase.value}`, csvText(HEADER, csvRows(group(), rowsOf(group()), [metric()]))));
addAction("everything as CSV", () => download("flopray-models", csvText(HEADER, DATA.groups.flatMap(part => csvRows(part, part.rows, DATA.metrics)))));
refresh("group", true);
applyView(refresh);
window.addEventListener("hashchange", () => applyView(refresh));
redrawOnResize(draw);
