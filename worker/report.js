"use strict";
(() => {
  const PRINTED = 680; // px, about, of a page's width
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll("[data-figure]")];
  const fit = (width) => places.forEach((place) => {
    const own = place.closest(".several") ? width / 2 - 12 : width;
    Plotly.relayout(place, width ? { width: own, autosize: false } : { width: null, autosize: true });
  });
  for (const place of places) {
    const { data, layout } = figures[place.dataset.figure];
    Plotly.newPlot(place, data, layout, { displayModeBar: false, responsive: true });
  }
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = folded();
    opened.forEach((one) => { one.open = !one.classList.contains("long"); });
    fit(PRINTED);
  });
  addEventListener("afterprint", () => {
    opened.forEach((one) => { one.open = false; });
    fit(0);
  });
})();
