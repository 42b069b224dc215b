/* Phones show a scroll bar only while one scrolls, so the caption of a table that is cut says that it goes on. */
const widths = new ResizeObserver(entries => entries.forEach(({ target }) =>
  target.closest("figure").toggleAttribute("data-scrolls", target.scrollWidth > target.clientWidth + 1)));
document.querySelectorAll("figure > .wide").forEach(part => widths.observe(part));
