/* The page of a run's surfaces: a rotating surface and a heat map, or lines where one axis has a single value. */
const FURTHER = ["square", "triangle-up", "star", "pentagon"];
const HOLES = ["square-open", "diamond-open", "circle-open", "cross-thin-open", "x-thin-open"];
const DIVERGING = [[0, "#2d004b"], [.25, "#998ec3"], [.5, "#f7f7f7"], [.75, "#f1a340"], [1, "#7f3b08"]];
/** Panel, x and y; one that the workload does not have has no letter. */
const [PANEL, X, Y] = DATA[0].axes;
const equals = (axis, value, sign) => axis.letter ? `${axis.letter} ${sign || "="} ${value}` : "";
const together = (...parts) => parts.filter(Boolean).join(", ");

const current = () => DATA.find(set =>
  set.group === controls.group.value && set.phase === controls.phase.value && set.metric === controls.metric.value);

/** After a change: offer what exists for the choices before it, then draw. */
function refresh(changed, quietly) {
  if (changed === "group") {
    const sets = DATA.filter(set => set.group === controls.group.value);
    fill(controls.phase, plain(sets.map(set => set.phase)));
    fill(controls.metric, plain(sets.map(set => set.metric)));
    ["n", "dmin", "mmin"].forEach(name => controls[name].replaceChildren());
  }
  const set = current();
  if (["group", "phase", "metric"].includes(changed) && set && set.grids) {
    fill(controls.n, set.grids.map(grid => [grid.n, equals(PANEL, grid.n)]).concat(set.grids.length > 1 ? [["all", "all " + PANEL.letter]] : []));
    fill(controls.dmin, set.d.map(d => [d, equals(X, d, "≥")]));
    fill(controls.mmin, set.m.map(m => [m, equals(Y, m, "≥")]));
  }
  if (!quietly) draw();
}

function place(scale, value) {
  if (value === null) return null;
  if (scale.kind === "log") return Math.log10(value);
  return scale.kind === "asinh" ? Math.asinh(value / scale.width) : value;
}

const valueAt = (scale, placed) =>
  scale.kind === "log" ? 10 ** placed : scale.kind === "asinh" ? Math.sinh(placed) * scale.width : placed;

/** Rows and columns of a grid that pass the filters, values placed on the scale, a text for each cell. */
function visible(set, scale, grid) {
  const columns = set.d.map((_, j) => j).filter(j => set.d[j] >= +controls.dmin.value);
  const rows = set.m.map((_, i) => i).filter(i => set.m[i] >= +controls.mmin.value);
  const pick = table => rows.map(i => columns.map(j => table[i][j]));
  const values = pick(grid.values), errors = pick(grid.errors), reasons = pick(grid.reasons), found = pick(grid.findings);
  const marks = pick(grid.marks), above = pick(grid.above);
  const text = values.map((row, i) => row.map((value, j) => {
    const where = together(equals(PANEL, grid.n), equals(X, set.d[columns[j]]), equals(Y, set.m[rows[i]])) + "<br>";
    if (value === null) return where + safe(reasons[i][j]);
    const late = !above[i][j] ? "" : errors[i][j] === null ? "<br>error not known: too few repeats" : "<br>error above the target";
    const audit = found[i][j] ? "<br>audit: " + safe(found[i][j].split(", ").map(readable).join(", ")) : "";
    return `${where}${number(value / set.unit.factor, 4)} ${set.unit.label} ${percent(errors[i][j])}${late}${audit}`;
  }));
  const edge = (all, kept) => all.slice(kept[0], kept[kept.length - 1] + 2);
  return {
    d: columns.map(j => set.d[j]), m: rows.map(i => set.m[i]), n: grid.n, text, reasons, marks, values, errors, above,
    heights: values.map(row => row.map(value => place(scale, value))),
    edges: [edge(set.edges[0], columns), edge(set.edges[1], rows)],
  };
}

/** Range, ticks and colours for what is shown. */
function colour(set, scale, shown) {
  let low = place(scale, scale.low), high = place(scale, scale.high);
  const seen = shown.flatMap(part => part.heights.flat()).filter(value => value !== null);
  if (seen.length && Math.min(...seen) < Math.max(...seen) && !scale.diverging) {
    low = Math.min(...seen);
    high = Math.max(...seen);
  }
  const ends = [low, high].map(end => valueAt(scale, end) / set.unit.factor);
  let placed = scale.ticks.map(tick => place(scale, tick)).filter(tick => tick >= low && tick <= high);
  let labels = placed.map(tick => String(+(valueAt(scale, tick) / set.unit.factor).toPrecision(5)));
  if (scale.kind !== "asinh" || placed.length < 3) {
    const ticks = roundTicks(...ends, scale.kind === "log");
    placed = ticks.map(tick => place(scale, tick * set.unit.factor));
    labels = ticks.map(String);
  }
  const most = Math.max(-low, high);
  const [cmin, cmax] = scale.diverging ? [-most, most] : [low, high];
  return { low, high, cmin, cmax, placed, labels, map: scale.diverging ? DIVERGING : "Viridis" };
}

const axis = (title, spacing, values) => ({
  title: { text: title }, type: spacing === "log" ? "log" : "linear", tickvals: values,
  ticktext: values.map(String), minor: { ticks: "" }, zeroline: false,
});

/** Measured values that get a tick: all where there is room, else every second one and so on from the largest down. */
const thin = (values, most) => values.filter((_, i) => (values.length - 1 - i) % Math.ceil(values.length / most) === 0);

/** A place within each cell of a table that has an entry, by entry. */
function marked(set, part, table, shares) {
  const groups = {};
  const between = (edges, k, share, spacing) => spacing === "log" ?
    edges[k] * (edges[k + 1] / edges[k]) ** share : edges[k] + share * (edges[k + 1] - edges[k]);
  table.forEach((row, i) => row.forEach((entry, j) => {
    if (!entry) return;
    (groups[entry] = groups[entry] || []).push({
      d: part.d[j], m: part.m[i], text: part.text[i][j], height: part.heights[i][j],
      x: between(part.edges[0], j, shares[0], set.spacings[0]), y: between(part.edges[1], i, shares[1], set.spacings[1]),
    });
  }));
  return groups;
}

/** Symbol and colour of a finding: the colour says how severe it is, the symbol which of that severity. */
function look(set, finding) {
  const severity = finding.split(":")[0], [symbol, color] = SEVERITIES[severity] || SEVERITIES.note;
  const all = new Set(set.grids.flatMap(grid => grid.marks.flat()).filter(mark => mark.split(":")[0] === severity));
  const symbols = [symbol, ...FURTHER];
  return [symbols[[...all].sort().indexOf(finding) % symbols.length], color];
}

const withValue = (part, table) => table.map((row, i) => row.map((entry, j) => part.values[i][j] === null ? "" : entry));
const isUnknown = grid => grid.above.some((row, i) => row.some((late, j) => late && grid.errors[i][j] === null));
const late = set =>
  `error above the target${set.target === null ? "" : ` of ${+(100 * set.target).toPrecision(3)} %`}${set.grids.some(isUnknown) ? " or not known" : ""}`;

function drawSurface(set, shown, tint) {
  const traces = [];
  shown.forEach((part, k) => {
    traces.push({
      type: "surface", x: part.d, y: part.m, z: part.heights, text: part.text, hoverinfo: "text", connectgaps: false,
      cmin: tint.cmin, cmax: tint.cmax, colorscale: tint.map, showscale: false, name: equals(PANEL, part.n),
      lighting: { ambient: .9, diffuse: .3, specular: .05 },
      contours: { x: { show: true, color: "#444", width: 1 }, y: { show: true, color: "#444", width: 1 } },
    });
    const dots = (points, name, symbol, color, z) => traces.push({
      type: "scatter3d", mode: "markers", x: points.map(p => p.d), y: points.map(p => p.m), z: points.map(z),
      text: points.map(p => p.text), hoverinfo: "text", name, showlegend: k === 0, marker: { symbol, size: 4, color },
    });
    Object.entries(marked(set, part, part.reasons, [.5, .5])).forEach(([reason, points], r) =>
      dots(points, safe(reason), HOLES[r % 3], shade("mark"), () => tint.low));
    Object.values(marked(set, part, part.above, [.5, .5])).forEach(points =>
      dots(points, late(set), "diamond", shade("ink"), p => p.height));
  });
  const small = { tickfont: { size: 11 } }, far = isNarrow() ? 1.3 : .92;
  const zaxis = { title: { text: `${set.label} (${set.unit.label})` }, tickvals: tint.placed, range: [tint.low, tint.high],
    // at the floor a label would lie upon those of the tokens
    ticktext: tint.labels.map((label, k) => tint.placed[k] < tint.low + .06 * (tint.high - tint.low) ? "" : label), ...small };
  plot("surface", traces, {
    margin: { l: 0, r: 0, t: 10, b: 0 }, showlegend: false, uirevision: "kept",
    scene: {
      xaxis: { ...axis(X.title, set.spacings[0], thin(shown[0].d, 5)), ...small },
      yaxis: { ...axis(Y.title, set.spacings[1], thin(shown[0].m, 5)), ...small },
      zaxis, camera: { eye: { x: -1.25 * far, y: -1.6 * far, z: .9 * far }, center: { x: 0, y: 0, z: -.1 } },
      aspectmode: "manual", aspectratio: { x: 1, y: 1, z: .75 },
    },
  });
}

/** What is written into the cells: value and error, the value, or nothing, as far as they fit. */
function cellTexts(set, part) {
  const place = element("heat"), bars = isNarrow() ? 60 : 150;
  const wide = (place.clientWidth - bars) / part.d.length, high = (place.clientHeight - 120) / part.m.length;
  if (wide < 34 || high < 15) return null;
  const both = wide > 54 && high > 30;
  return part.values.map((row, i) => row.map((value, j) => {
    if (value === null) return "";
    const known = percent(part.errors[i][j]).replace(" %", "%") || (part.above[i][j] ? "± ?" : "");
    return number(value / set.unit.factor) + (both && known ? "<br>" + known : "");
  }));
}

function drawHeat(set, part, tint) {
  const narrow = isNarrow(), label = `${set.label} (${set.unit.label})`, texts = cellTexts(set, part);
  const bar = { tickvals: tint.placed, ticktext: tint.labels, thickness: 14, outlinewidth: 0 };
  const traces = [{
    type: "heatmap", x: part.edges[0], y: part.edges[1], z: part.heights, hovertext: part.text, hoverinfo: "text",
    zmin: tint.cmin, zmax: tint.cmax, colorscale: tint.map, hoverongaps: false,
    colorbar: narrow ?
      { ...bar, orientation: "h", x: .5, xanchor: "center", y: 1.01, yanchor: "bottom", title: { text: label, side: "top" } } :
      { ...bar, title: { text: label, side: "right" } },
  }];
  if (texts) traces.push(textTrace(part, texts, tint, narrow ? 10 : 12));
  Object.entries(marked(set, part, part.reasons, [.5, .5])).forEach(([reason, points], r) =>
    traces.push(points2d(points, safe(reason), HOLES[r % HOLES.length], shade("mark"))));
  Object.entries(marked(set, part, withValue(part, part.marks), [.9, .88])).forEach(([finding, points]) => {
    traces.push(points2d(points, "audit: " + safe(readable(finding)), ...look(set, finding)));
  });
  Object.values(marked(set, part, part.above, [.92, .1])).forEach(points =>
    traces.push(points2d(points, late(set), "triangle-se", shade("ink"))));
  const ranges = part.edges.map((edges, k) => set.spacings[k] === "log" ?
    [Math.log10(edges[0]), Math.log10(edges[edges.length - 1])] : [edges[0], edges[edges.length - 1]]);
  const { legend, bottom } = bottomLegend(traces.filter(trace => trace.showlegend).length, narrow, element("heat").clientWidth);
  plot("heat", traces, {
    margin: narrow ? { l: 48, r: 8, t: 70, b: bottom + 8 } : { l: 60, r: 10, t: 30, b: bottom },
    title: { text: equals(PANEL, part.n), font: { size: 13 }, x: narrow ? .02 : .08, y: .985, yanchor: "top" }, plot_bgcolor: shade("hole"),
    showlegend: traces.some(trace => trace.showlegend), legend,
    // over a horizontal legend or colour bar plotly lays the title of the axis upon its labels
    annotations: [{ xref: "paper", yref: "paper", x: .5, y: 0, yanchor: "top", yshift: -22, text: X.title, showarrow: false, font: { size: 14 } }],
    xaxis: { ...axis("", set.spacings[0], thin(part.d, narrow ? 5 : 8)), range: ranges[0], showgrid: false },
    yaxis: { ...axis(Y.title, set.spacings[1], thin(part.m, 8)), range: ranges[1], showgrid: false },
  });
}

/** Texts at the middle of their cells, dark on light cells and light on dark ones. */
function textTrace(part, texts, tint, size) {
  const cells = part.m.flatMap((m, i) => part.d.map((d, j) => [d, m, texts[i][j], part.heights[i][j]])).filter(cell => cell[3] !== null);
  const isLight = height => {
    const share = (height - tint.cmin) / (tint.cmax - tint.cmin);
    return tint.map === DIVERGING ? share > .18 && share < .86 : share > .6;
  };
  return { type: "scatter", mode: "text", x: cells.map(c => c[0]), y: cells.map(c => c[1]), text: cells.map(c => c[2]),
    textfont: { size, color: cells.map(c => isLight(c[3]) ? "#000" : "#fff") }, hoverinfo: "skip", showlegend: false };
}

function points2d(points, name, symbol, color) {
  return { type: "scatter", mode: "markers", x: points.map(p => p.x), y: points.map(p => p.y), text: points.map(p => p.text),
    hoverinfo: "text", name, showlegend: true, marker: { symbol, size: 8, color, line: { width: 1, color: color === shade("ink") ? shade("edge") : "#222" } } };
}

/** One value on an axis: lines over the other one, with error bars. */
function drawLines(set, scale, shown) {
  const alongD = shown[0].d.length > 1;
  const scaled = part => part.values.flat().map(value => value === null ? null : value / set.unit.factor);
  const traces = shown.map(part => {
    const values = scaled(part), errors = part.errors.flat();
    return {
      type: "scatter", mode: "lines+markers", name: equals(PANEL, part.n), showlegend: Boolean(equals(PANEL, part.n)), x: alongD ? part.d : part.m, y: values,
      text: part.text.flat(), hoverinfo: "text",
      error_y: { array: values.map((value, i) => value === null ? 0 : Math.abs(value) * (errors[i] || 0)) },
    };
  });
  const imprecise = shown.flatMap(part => {
    const values = scaled(part), places = alongD ? part.d : part.m, above = part.above.flat();
    return places.map((at, i) => [at, values[i], part.text.flat()[i]]).filter((_, i) => above[i]);
  });
  if (imprecise.length) {
    traces.push({ type: "scatter", mode: "markers", name: late(set), x: imprecise.map(p => p[0]), y: imprecise.map(p => p[1]),
      text: imprecise.map(p => p[2]), hoverinfo: "text", marker: { symbol: "triangle-se", size: 9, color: shade("ink") } });
  }
  const seen = traces.flatMap(trace => trace.y).filter(value => value !== null);
  const reached = traces.flatMap(trace => trace.y.flatMap((y, i) => y === null ? [] : [-1, 1].map(sign => y + sign * (trace.error_y?.array[i] || 0))));
  const positive = scale.kind === "log", ends = closeEnds(reached, positive);
  const ticks = roundTicks(...(ends || [Math.min(...seen), Math.max(...seen)]), positive);
  const { legend, bottom } = bottomLegend(traces.length, isNarrow());
  plot("lines", traces, {
    margin: { l: 62, r: 10, t: 30, b: bottom }, legend, showlegend: traces.some(trace => trace.name),
    xaxis: alongD ? axis(X.title, set.spacings[0], thin(shown[0].d, 8)) : axis(Y.title, set.spacings[1], thin(shown[0].m, 8)),
    title: { text: alongD ? equals(Y, shown[0].m[0]) : equals(X, shown[0].d[0]), font: { size: 13 }, x: .08, y: .985, yanchor: "top" },
    yaxis: { title: { text: `${set.label} (${set.unit.label})` }, type: positive ? "log" : "linear", tickvals: ticks, ticktext: ticks.map(String), ...rangeOf(ends, positive) },
  });
}

/** The numbers of one n: a row for each m, a column for each d; on a narrow page a row for each point. */
function drawTable(set, part) {
  const italic = part.above.flat().some(Boolean) ? `; slanted: ${late(set)}` : "";
  const caption = `${together(`${set.label} in ${set.unit.label}`, equals(PANEL, part.n))}${set.interval && `; ±: 95 % interval ${set.interval}`}${italic}`;
  if (isNarrow()) {
    const rows = part.m.flatMap((m, i) => part.d.map((d, j) => [d, m, ...(part.values[i][j] === null ?
      [{ text: part.reasons[i][j], kind: "text" }, ""] : [number(part.values[i][j] / set.unit.factor), percent(part.errors[i][j])]
        .map(text => ({ text, kind: part.above[i][j] ? "above" : "" })))]));
    return fillTable(caption, [X.letter, Y.letter, set.unit.label, "±"], rows, 0);
  }
  const rows = part.m.map((m, i) => [equals(Y, m), ...part.values[i].map((value, j) => value === null ? part.reasons[i][j] : {
    text: `${number(value / set.unit.factor)} ${percent(part.errors[i][j])}`, kind: part.above[i][j] ? "above" : "",
  })]);
  fillTable(caption, ["", ...part.d.map(d => equals(X, d))], rows, 1);
}

const HEADER = ["device_type", "precision", "execution", "phase", "metric", "unit", PANEL.name, X.name, Y.name, "value",
  "rel_error", "above_target", "missing", "findings"];

/** Every cell of some sets in SI units. */
const csvRows = sets => sets.flatMap(set => (set.grids || []).flatMap(grid => set.m.flatMap((m, i) => set.d.map((d, j) => [
  ...set.key, set.phase, set.metric, set.si, grid.n, d, m, grid.values[i][j], grid.errors[i][j],
  grid.values[i][j] === null ? null : !grid.above[i][j] ? "no" : grid.errors[i][j] === null ? "not known" : "yes", grid.reasons[i][j], grid.findings[i][j]]))));

function draw() {
  const set = current();
  say("title", set ? set.title : "No such combination was measured");
  say("subtitle", set ? set.subtitle : "");
  const holes = set ? Object.entries(set.holes).map(([reason, count]) => `${reason} (${count})`).join(", ") : "";
  const everywhere = set && set.everywhere ? set.everywhere.map(readable).join(", ") : "";
  say("remarks", [holes && `Without a value: ${holes}`, everywhere && `Audit, all points: ${everywhere}`].filter(Boolean).join(". "));
  element("numbers").hidden = !set || !set.grids;
  if (!set || !set.grids) return show([]);
  const scale = set.scales[controls.scale.value === "log" ? 1 : 0];
  const chosen = set.grids.filter(grid => String(grid.n) === controls.n.value);
  const shown = (chosen.length ? chosen : set.grids).map(grid => visible(set, scale, grid));
  const last = shown[shown.length - 1];
  drawTable(set, last);
  if (!shown.some(part => part.values.flat().some(value => value !== null))) return show([]);
  const single = Math.min(last.d.length, last.m.length) === 1;
  show(single ? ["lines"] : ["surface", "heat"]);
  if (single) return drawLines(set, scale, shown);
  const tint = colour(set, scale, shown);
  drawSurface(set, shown, tint);
  drawHeat(set, last, tint);
}

nameWindow("flopray surfaces");
addPlots("surface", "heat", "lines");
addControl("group", "device", plain(DATA.map(set => set.group)), refresh);
addControl("phase", "phase", [], refresh);
addControl("metric", "metric", [], refresh);
addControl("scale", "scale", [["log", "log"], ["linear", "linear"]], refresh);
[["n", PANEL], ["dmin", X], ["mmin", Y]].forEach(([name, axis]) => {
  addControl(name, axis.label, [], refresh);
  controls[name].closest("label").hidden = !axis.letter;
});
addAction("this metric as CSV", () => { const set = current(); if (set) download(`${set.group}-${set.phase}-${set.metric}`, csvText(HEADER, csvRows([set]))); });
addAction("everything as CSV", () => download("flopray-surfaces", csvText(HEADER, csvRows(DATA))));
refresh("group", true);
applyView(refresh);
window.addEventListener("hashchange", () => applyView(refresh));
redrawOnResize(draw);
