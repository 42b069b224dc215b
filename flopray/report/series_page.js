/* The page of a time series: a plot a quantity, zoomed together, with named regions as bands. */
const devices = unique(DATA.panels.flatMap(panel => panel.lines.map(line => line.device)));
const colourOf = device => DATA.colours[devices.indexOf(device) % DATA.colours.length];

function layoutOf(panel) {
  const shapes = DATA.bands.map(band => ({
    type: "rect", xref: "x", yref: "paper", x0: band.start, x1: band.end, y0: 0, y1: 1, layer: "below",
    fillcolor: DATA.bandColours[band.name], opacity: .35, line: { width: 1, color: DATA.bandColours[band.name] },
  }));
  return {
    margin: { l: 64, r: 12, t: 28, b: 40 }, shapes, showlegend: false, hovermode: "x unified",
    title: { text: `${safe(panel.title)} (${safe(panel.unit)})`, x: 0, font: { size: 13 } },
    xaxis: { title: { text: "time (s)" } }, yaxis: { rangemode: ["W", "GiB", "ms"].includes(panel.unit) ? "tozero" : "normal" },
  };
}

function drawLegend() {
  const entry = (colour, text) => {
    const box = node("span"), mark = node("span", "■ ");
    mark.style.color = colour;
    box.append(mark, text);
    return box;
  };
  element("legend").replaceChildren(
    ...devices.map(device => entry(colourOf(device), device)),
    ...Object.entries(DATA.bandColours).map(([name, colour]) => entry(colour, name)));
}

/** A zoom into one plot is a zoom into all of them. */
function zoomAll(from, change) {
  const range = change["xaxis.autorange"] ? { "xaxis.autorange": true }
    : "xaxis.range[0]" in change ? { "xaxis.range": [change["xaxis.range[0]"], change["xaxis.range[1]"]] } : null;
  if (!range || zoomAll.busy) return;
  zoomAll.busy = true;
  Promise.all(DATA.panels.map((_, i) => i === from ? null : Plotly.relayout(element(`panel${i}`), range)))
    .then(() => { zoomAll.busy = false; });
}

say("title", DATA.title);
say("subtitle", "Drag to zoom, double-click to see everything.");
element("numbers").hidden = true;
addPlots(...DATA.panels.map((_, i) => `panel${i}`));
DATA.panels.forEach((panel, i) => {
  element(`panel${i}`).style.height = "15rem";
  const traces = panel.lines.map(line => ({
    type: "scatter", mode: "lines", name: safe(line.device), x: line.time, y: line.values,
    line: { color: colourOf(line.device), width: 1.3, shape: line.device === DATA.steps ? "vh" : "linear" },
  }));
  plot(`panel${i}`, traces, layoutOf(panel)).then(drawn => drawn.on("plotly_relayout", change => zoomAll(i, change)));
});
drawLegend();
