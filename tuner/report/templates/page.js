"use strict";
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  const specs = JSON.parse(document.getElementById("charts").textContent);
  let theme = kept || (dark.matches ? "dark" : "light");
  let views = [];

  const styles = () => {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue(name).trim();
  };

  function config() {
    const of = styles(), font = of("--sans");
    const quiet = { labelColor: of("--dim"), titleColor: of("--dim"), labelFont: font, titleFont: font };
    return {
      background: "transparent",
      font,
      view: { stroke: null },
      axis: { ...quiet, gridColor: of("--line"), domainColor: of("--line"), tickColor: of("--line"), titleFontWeight: 500, labelFontSize: 11, titleFontSize: 12 },
      axisX: { labelFlush: false, labelOverlap: "greedy", tickCount: 8 },
      legend: { ...quiet, labelFontSize: 11.5, titleFontSize: 12, titleFontWeight: 500, symbolType: "circle", symbolBaseFillColor: of("--dim"), symbolBaseStrokeColor: of("--dim") },
    };
  }

  function shaped(spec, narrow) {
    // What is drawn in the colour of text has to follow the theme; a legend, the room there is.
    const inked = JSON.stringify(spec).replaceAll('"#10243e"', JSON.stringify(theme === "dark" ? "#0b1017" : "#10243e"));
    const least = narrow ? { columns: 2, labelLimit: 125 } : {};
    return JSON.parse(inked, (key, value) => (key in least ? Math.min(value, least[key]) : value));
  }

  async function draw() {
    for (const view of views) view.finalize();
    views = [];
    const options = { actions: false, renderer: "svg", ast: true, config: config(), tooltip: { theme } };
    const places = window.vegaEmbed ? document.querySelectorAll("[data-chart]") : [];
    for (const place of places) {
      const spec = specs[place.dataset.chart];
      const narrow = place.clientWidth < 480;
      options.config.axisX.tickCount = narrow ? 5 : 8;
      options.config.legend.layout = { top: { direction: narrow ? "vertical" : "horizontal", anchor: "start" } };
      views.push(await vegaEmbed(place, shaped(spec, narrow), options));
    }
    root.dataset.ready = "true";
  }

  function show(next) {
    theme = next;
    root.dataset.theme = theme;
    return draw();
  }

  function copy(button) {
    const text = button.parentElement.querySelector("pre").textContent;
    const said = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "copy"; }, 1500); };
    const old = () => {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("pre"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      said(document.execCommand("copy") ? "copied" : "selected");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => said("copied"), old); else old();
  }

  function sort(head) {
    const body = head.closest("table").tBodies[0];
    const column = [...head.parentElement.children].indexOf(head);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.children[column];
    const order = (a, b) => {
      const [x, y] = [key(a).dataset.sort, key(b).dataset.sort];
      if (x !== undefined || y !== undefined) return (x === undefined ? -Infinity : +x) - (y === undefined ? -Infinity : +y);
      return key(a).textContent.localeCompare(key(b).textContent, undefined, { numeric: true });
    };
    const rows = [...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
    body.append(...rows);
  }

  document.addEventListener("click", (event) => {
    const target = event.target;
    if (target.matches("[data-copy]")) copy(target);
    else if (target.matches("thead th")) sort(target);
    else if (target.id === "theme") {
      const next = theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", next); } catch { /* it is not kept */ }
      show(next);
    }
  });
  if (!kept) dark.addEventListener("change", () => show(dark.matches ? "dark" : "light"));

  const live = document.body.dataset.live;
  if (live) {
    const folded = [...document.querySelectorAll("details")];
    const open = JSON.parse(sessionStorage.getItem("open") || "[]");
    for (const one of folded) one.open = open.includes(one.querySelector("summary").textContent);
    const keep = () => folded.filter((one) => one.open).map((one) => one.querySelector("summary").textContent);
    addEventListener("pagehide", () => sessionStorage.setItem("open", JSON.stringify(keep())));
    setInterval(async () => {
      try {
        const answer = await fetch("version", { cache: "no-store" });
        if (answer.ok && (await answer.text()) !== live) location.reload();
      } catch { /* the server has ended; the page stays */ }
    }, 3000);
  }
  show(theme);
})();
