/* Unpacks plotly.js and the data of each view when the view comes near, and draws it. */
async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

let plotly = null;
/** plotly.js, once. */
function loadPlotly() {
  plotly = plotly || unpack("plotly").then(text => {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  });
  return plotly;
}

async function drawView(place) {
  const name = place.dataset.view;
  try {
    await loadPlotly();
    const data = JSON.parse(await unpack(name));
    place.innerHTML = PARTS;
    VIEWS[name](place, data);
  } catch (error) {
    place.textContent = `This view cannot be drawn here (${error.message}). The tables have its numbers.`;
  }
}

const near = new IntersectionObserver(entries => entries.forEach(entry => {
  if (!entry.isIntersecting) return;
  near.unobserve(entry.target);
  drawView(entry.target);
}), { rootMargin: "800px" });
document.querySelectorAll("[data-view]").forEach(place => near.observe(place));
