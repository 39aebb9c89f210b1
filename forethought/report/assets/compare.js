// Several runs over each other.

(() => {
  const board = new Board(new Set()); // a run that is hidden in one chart is hidden in all
  const runs = DATA.runs.map((run, i) => ({ ...run, colour: RUNS[i % RUNS.length] }));

  // One metric of all runs. `of` returns what belongs to its kind of chart, and the key, on each drawing.
  const overlay = (of) => {
    const make = () => {
      const { key, smooth, ...more } = of();
      const lines = runs.map((run) => makeLine(run, key, run.label, run.colour, smooth)).filter(Boolean);
      if (!lines.length) return null;
      return { bands: [], lost: [], marks: [], format: num, height: 210, axis: view.axis, domain: domain(runs), lines, ...more };
    };
    return new Plot(board, make).figure;
  };
  const loud = () => runs.flatMap((run) => marksOf(run, run.label + ": ").filter((m) => rank(m) > 0)).sort((a, b) => a.x - b.x);
  const sideChart = (side) => () => {
    const title = view.level === "all" ? side : `${side} at level ${view.level}`;
    return { key: "eval/" + atLevel(side), title, note: SIDE_MEANS[side], marks: loud(), rail: true, height: 300, ...shares("tasks solved") };
  };
  const sides = SIDES.map((side) => overlay(sideChart(side)));
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.series)))];
  const metricChart = (group, key) => () => {
    const [, note, unit, means] = GROUPS[group] || [];
    return { key, smooth: view.smooth, title: key, note: note || "", unit, means };
  };
  const more = grouped(names, runs.flatMap(rolesOf)).flatMap(([group, keys]) =>
    keys.map((key) => overlay(metricChart(group, key))),
  );

  const endCell = (run, key) => {
    const p = run.end[key];
    return el("td.n", {}, p ? [el("b", {}, pct(p.value)), interval(p) ? el("small.dim", {}, interval(p)) : null] : "—");
  };
  const ends = scroll(
    el(
      "table.ends",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", {}, ""),
          runs.map((run) => el("th.n", {}, runName(run))),
        ),
      ),
      SIDES.map((side) =>
        el(
          "tbody",
          {},
          [null, ...DATA.levels].map((level) =>
            el(
              level === null ? "tr.stage" : "tr.level",
              {},
              el(
                "th",
                { scope: "row" },
                level === null ? el("b", { style: { "--c": ROLE_COLOURS[side] } }, side) : `level ${level}`,
              ),
              runs.map((run) => endCell(run, level === null ? side : `${side}@${level}`)),
            ),
          ),
        ),
      ),
    ),
  );

  const value = (v) => (v === "—" ? v : typeof v === "string" ? v : JSON.stringify(v));
  const settings = (rows) =>
    scroll(
      el(
        "table.diff",
        {},
        el("thead", {}, el("tr", {}, el("th", {}, "setting"), runs.map((run) => el("th", {}, runName(run))))),
        el(
          "tbody",
          {},
          rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.key), row.values.map((v) => el("td", {}, value(v))))),
        ),
      ),
    );
  // What a run lacks and what another has switched off are the same; names are on the page already.
  const unset = (v) => v === "—" || v === null;
  const told = DATA.differences.filter((row) => !["name", "about"].includes(row.key) && !row.values.every(unset));
  const FIRST = 12;
  const differing = told.length
    ? [
        settings(told.slice(0, FIRST)),
        told.length > FIRST
          ? el("details.more", {}, el("summary", {}, `${told.length - FIRST} more settings`), settings(told.slice(FIRST)))
          : null,
      ]
    : el("p.dim", {}, "The recipes are the same.");

  const machines = [...new Set(runs.flatMap((run) => Object.keys(run.machine)))];
  const costRows = [
    ["status", (r) => STATUS[r.status][0]],
    ["time", (r) => duration(r.cost.seconds)],
    ["steps", (r) => whole(r.cost.steps)],
    ["stages begun", (r) => r.stages.filter((s) => s.span).length],
    ["tokens sampled", (r) => compact(r.cost.tokens_sampled)],
    ["tokens trained", (r) => compact(r.cost.tokens_trained)],
    ...(runs.some((run) => run.probes) ? [["probes", (r) => (r.probes ? probeShare(r) : "—")]] : []),
    ["seed", (r) => r.seed ?? "—"],
    ...machines.map((key) => [key, (r) => r.machine[key] ?? "—"]),
  ];
  const cost = scroll(
    el(
      "table.diff",
      {},
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", {}, ""),
          runs.map((run) => el("th", {}, runName(run))),
        ),
      ),
      el(
        "tbody",
        {},
        costRows.map(([name, of]) =>
          el(
            "tr",
            {},
            el("th", { scope: "row" }, name),
            runs.map((run) => el("td", {}, of(run))),
          ),
        ),
      ),
    ),
  );

  document.getElementById("page").append(
    el(
      "header.top",
      {},
      el("div.title", {}, el("h1", {}, `${runs.length} runs`)),
      el("p.runs", {}, runs.map(runName)),
      el(
        "ul.ranking",
        {},
        DATA.sentences.map((text) => el("li", {}, sentence(text))),
      ),
      notesBox(DATA.notes),
    ),
    section("settings", "Where the recipes differ", "Only the settings that are not the same in all runs.", differing),
    section("curves", "Curves", null, controls(board, DATA.levels), el("div.grid.three", {}, sides)),
    section(
      "ends",
      "Where each run ends",
      "The last evaluation that no roll back threw away, with its 95" + NB + "% interval.",
      ends,
    ),
    section("decisions", "Decisions", null, decisionTable(runs)),
    section("more", "More metrics", null, el("div.grid.three", {}, more)),
    section("cost", "Cost", null, cost),
    el("footer", {}, "Written by forethought from the run directories alone."),
  );
  board.redraw();
})();
