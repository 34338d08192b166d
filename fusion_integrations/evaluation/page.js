"use strict";
(() => {
  const style = () => getComputedStyle(document.documentElement);

  // Figures name colours by style variables; only values of colour settings are looked up, never texts of logs.
  const themed = (value, key) => {
    if (Array.isArray(value)) return value.map((each) => themed(each, key));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, themed(each, name)]));
    }
    const isColor = typeof value === "string" && /color$/.test(key || "") && value.startsWith("--");
    return isColor ? style().getPropertyValue(value).trim() : value;
  };

  const shownHeads = (log) =>
    new Set([...log.querySelectorAll(".heads input:checked")].map((box) => box.value));

  const draw = (plot) => {
    const figure = JSON.parse(plot.nextElementSibling.textContent);
    const heads = shownHeads(plot.closest(".log"));
    const data = figure.data.filter(({ strategy }) => !strategy || heads.has(strategy));
    const isNarrow = plot.clientWidth < 560;
    if (isNarrow) for (const trace of data) trace.mode = trace.mode.replace("+text", ""); // no room for labels
    const isRound = Boolean(figure.layout.polar); // its labels stand outside, where Plotly leaves them no room
    const legendPlace = isRound
      ? { y: -0.12, yanchor: "top" }
      : { y: 0, yref: "container", yanchor: "bottom" };
    const side = isRound ? 80 : 16;
    const margin = { l: side, r: side, t: isRound ? 40 : 24, b: 16 };
    const layout = {
      ...figure.layout,
      paper_bgcolor: "--plain",
      plot_bgcolor: "--plain",
      font: { color: "--text", family: "system-ui, sans-serif", size: isNarrow ? 11 : 13 },
      hoverlabel: { bgcolor: "--back", bordercolor: "--muted", font: { color: "--text" } },
      legend: { orientation: "h", itemclick: false, itemdoubleclick: false, ...legendPlace },
      margin,
      dragmode: false,
    };
    return Plotly.react(plot, themed(data), themed(layout), { displayModeBar: false, responsive: true });
  };

  const drawAll = (log) => Promise.all([...log.querySelectorAll(".plot")].map(draw));

  const PAGE = 20;

  const filter = (explorer, limit = PAGE) => {
    const [search, task, choice, which] = ["search", "task", "choice", "which"].map(
      (name) => explorer.querySelector(`[name=${name}]`).value,
    );
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...explorer.querySelectorAll("tbody tr")];
    const found = rows.filter((row) => {
      row.text ??= row.textContent.toLowerCase();
      return (
        words.every((word) => row.text.includes(word)) &&
        (!task || row.dataset.task === task) &&
        (!choice || JSON.parse(row.dataset.chosen).includes(choice)) &&
        (!which || row.dataset.marks.split(" ").includes(which))
      );
    });
    const shown = new Set(found.slice(0, limit));
    for (const row of rows) row.hidden = !shown.has(row);
    explorer.querySelector("output").textContent =
      `${found.length} of ${rows.length} queries match` + (found.length > limit ? `, ${limit} are shown` : "");
    const more = explorer.querySelector("button");
    more.hidden = found.length <= limit;
    more.onclick = () => filter(explorer, limit + PAGE);
  };

  const logs = [...document.querySelectorAll(".log")];
  for (const log of logs) {
    log.querySelector(".heads")?.addEventListener("change", () => drawAll(log));
    for (const explorer of log.querySelectorAll(".explorer")) {
      explorer.addEventListener("input", () => filter(explorer));
      filter(explorer);
    }
  }
  const redraw = () => Promise.all(logs.map(drawAll));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw().then(() => document.documentElement.setAttribute("data-drawn", "true"));
})();
