/* What every view has: the parts that it lies in, controls that a link keeps, numbers, tables, CSV, the look of plots.
   A view is a script that follows this text and finds ROOT, the element that it lies in, and DATA. */
/** On a narrow page the buttons of a plot would lie upon its title; fingers do what they do. */
const config = () => ({ responsive: true, displaylogo: false, displayModeBar: !isNarrow() });
const SEVERITIES = { impossible: ["x", "#d62728"], implausible: ["diamond", "#ff9f40"], note: ["circle", "#ffffff"] };
/** Colours of the page, which are other ones where it is dark. */
const shade = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/** Draw, or draw again, in the part of that name. What a layout does not say is as the page looks. */
function plot(name, traces, layout) {
  const lines = { gridcolor: shade("faint"), linecolor: shade("mark"), zerolinecolor: shade("mark") };
  const template = { layout: {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: shade("ink") }, xaxis: lines, yaxis: lines,
    scene: { xaxis: lines, yaxis: lines, zaxis: lines },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: shade("mark"), activecolor: shade("ink") },
  } };
  return Plotly.react(element(name), traces, { template, ...layout }, config());
}

const unique = list => [...new Set(list)];
const plain = list => unique(list).map(value => [value, value]);
const controls = {};
const element = part => ROOT.querySelector(`[data-part="${part}"]`);
const say = (part, text) => { element(part).textContent = text; };
const isNarrow = () => element("plots").clientWidth < 600;

/** Plotly reads a little markup in its texts. */
const safe = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

/** A finding of the audit as legends name it: `note:phases_interact` is `phases interact (note)`. */
const readable = code => code.replace(/^(\w+):(.+)$/, (_, severity, rule) => `${rule.replace(/_/g, " ")} (${severity})`);
/** A phase as titles name it. */
const phaseName = phase => phase === "train_step" ? "training step" : phase.replace(/_/g, " ");

function node(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function addControl(name, label, entries, changed) {
  const box = node("label", label), select = node("select");
  box.append(select);
  element("controls").append(box);
  controls[name] = select;
  fill(select, entries);
  select.addEventListener("change", () => { changed(name); keepView(); });
}

/** Put [value, text] entries into a select and keep what was chosen where it still exists. */
function fill(select, entries) {
  const kept = select.value;
  select.replaceChildren(...entries.map(([value, text]) => {
    const option = node("option", text);
    option.value = value;
    return option;
  }));
  choose(select, kept);
}

function choose(select, value) {
  if ([...select.options].some(option => option.value === String(value))) select.value = value;
}

/** The name of a control in the address; of several views on a page each has names of its own. */
const inAddress = name => ROOT.dataset.view ? `${ROOT.dataset.view}.${name}` : name;

/** The view stands in the address, so that a link shows the same. */
function keepView() {
  const view = new URLSearchParams(location.hash.slice(1));
  Object.entries(controls).forEach(([name, select]) => view.set(inAddress(name), select.value));
  history.replaceState(null, "", "#" + view);
}

/** Choose what the address says, one control after the other, since each offers what exists for those before it. */
function applyView(changed) {
  const view = new URLSearchParams(location.hash.slice(1));
  Object.keys(controls).forEach((name, index) => {
    if (view.has(inAddress(name))) choose(controls[name], view.get(inAddress(name)));
    changed(name, index < Object.keys(controls).length - 1);
  });
}

function addAction(label, act) {
  const button = node("button", label);
  button.type = "button";
  button.addEventListener("click", act);
  element("actions").append(button);
}

/** One field of a CSV; a text that a spreadsheet would take for a formula is kept a text. */
function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+@-]/.test(value) ? "'" + value : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

const csvText = (header, rows) => [header, ...rows].map(row => row.map(field).join(",")).join("\r\n") + "\r\n";

function download(name, text) {
  const link = node("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name.replace(/[^A-Za-z0-9._-]+/g, "-") + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const PREFIXES = [[1e-12, "p"], [1e-9, "n"], [1e-6, "µ"], [1e-3, "m"], [1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"], [1e12, "T"], [1e15, "P"]];

/** The unit with the prefix that writes a value as a number from 1 to 1000. */
function unitFor(unit, value) {
  if (unit === "%") return { factor: .01, label: "%" };
  const found = PREFIXES.filter(([factor]) => Math.abs(value) >= factor).pop() || [1, ""];
  return { factor: found[0], label: found[1] + unit };
}

/** Three significant digits, such as 12.0 or 0.885, without an exponent where it can be without. */
function number(value, digits = 3) {
  if (value === 0) return "0";
  const text = Number(value.toPrecision(digits));
  if (Math.abs(text) >= 1e6 || Math.abs(text) < 1e-4) return text.toExponential(digits - 1);
  return text.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(text)))));
}

const percent = error => error === null ? "" : `± ${error < .0001 ? "< 0.01" : error < .995 ? (100 * error).toPrecision(2) : Math.round(100 * error)} %`;

/** Round values from low to high, both in display units: 1, 2, 5 times powers of ten, or even steps. */
function roundTicks(low, high, log, most = 6) {
  const inside = list => list.filter(tick => tick >= low * (1 - 1e-9 * Math.sign(low)) && tick <= high * (1 + 1e-9 * Math.sign(high)));
  if (log && low > 0) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    for (const [multiples, every] of [[[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 3]]) {
      const ticks = [];
      for (let k = first; k <= last; k++) if (k % every === 0) multiples.forEach(m => ticks.push(+`${m}e${k}`));
      const kept = inside(ticks);
      if (kept.length <= most && kept.length >= 3) return kept;
    }
  }
  const rough = (high - low) / most, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(m => m * size).find(s => s >= rough) || size;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(+(k * step).toPrecision(6));
  return ticks;
}

/** Ends of an axis over values that lie within a factor of 2, so that plotly does not show ten decades for one; null else. */
function closeEnds(values, log) {
  const low = Math.min(...values), high = Math.max(...values);
  if (log) return low > 0 && high < 2 * low ? [low / 1.5, high * 1.5] : null;
  return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : null;
}

/** The same as a range of plotly's, which takes logarithms. */
const rangeOf = (ends, log) => ends ? { range: log ? ends.map(Math.log10) : ends } : {};

/** An HTML table of texts; the first `texts` columns are words. */
function fillTable(caption, header, rows, texts) {
  const table = element("table"), head = node("tr");
  say("caption", caption);
  header.forEach((name, i) => head.append(node("th", name, i < texts ? "text" : "")));
  const body = node("tbody");
  rows.forEach(row => {
    const line = node("tr");
    row.forEach((cell, i) => line.append(node("td", cell.text ?? cell, cell.kind || (i < texts ? "text" : ""))));
    body.append(line);
  });
  const top = node("thead");
  top.append(head);
  table.replaceChildren(top, body);
}

/** A legend along the bottom edge, and the bottom margin that it and the title of the axis above it need. */
function bottomLegend(entries, narrow, width = null) {
  const inLine = width === null ? (narrow ? 2 : 4) : Math.max(1, Math.floor(width / 300)); // an audit's rule has 250 px
  const lines = entries ? Math.ceil(entries / inLine) : 0;
  return { legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, bottom: 48 + 20 * lines + (lines ? 6 : 0) };
}

/** Make the places of plots, once; `show` says which are seen. */
function addPlots(...names) {
  names.forEach(name => {
    const place = node("div");
    place.dataset.part = name;
    element("plots").append(place);
  });
}

function show(names) {
  element("plots").classList.toggle("two", names.length > 1);
  [...element("plots").children].forEach(place => { place.hidden = !names.includes(place.dataset.part); });
}

/** Draw again at another width, which says what fits into a cell and where a colour bar lies, and in other light. */
function redrawOnResize(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  let width = element("plots").clientWidth, timer;
  new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (element("plots").clientWidth === width) return;
      width = element("plots").clientWidth;
      draw();
    }, 150);
  }).observe(element("plots"));
}

/** The title of the window; a view in a page of several leaves it alone. */
function nameWindow(text) {
  if (ROOT === document.body) document.title = text;
}
