// The page of one run, top to bottom.

(() => {
  const run = DATA;
  const board = new Board();
  const [status, tone] = STATUS[run.status];
  const probed = Object.keys(run.series).some((name) => PROBED.test(name));
  const chapters = [
    ["curves", "Curves"],
    ...(probed ? [["probes", "Probes"]] : []),
    ...(Object.keys(run.series).some(isMetric) ? [["metrics", "Metrics"]] : []),
    ["stages", "Stages"],
    ...(run.phases.length ? [["phases", "Phases"]] : []),
    ["decisions", "Decisions"],
    ...(run.films.items.length ? [["films", "Episodes"]] : []),
    ["trees", "Trees"],
    ["recipe", "Recipe"],
    ["cost", "Cost"],
  ];
  document.getElementById("page").append(
    el(
      "header.top",
      {},
      el(
        "div.title",
        {},
        el("h1", {}, run.name),
        pill(status, tone),
        el(
          "span.dim",
          {},
          [known(run.seed) ? `seed ${run.seed}` : "", duration(run.cost.seconds), `${whole(run.cost.steps)} steps`]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
      run.about ? el("p.about", {}, run.about) : null,
      el("p.headline", {}, sentence(run.headline)),
      notesBox(run.notes),
      bigNumbers(run.big),
      stageSentences(run, run.sentences),
    ),
    el(
      "nav",
      { "aria-label": "chapters" },
      chapters.map(([id, name]) => el("a", { href: "#" + id }, name)),
    ),
    section(
      "curves",
      "Curves",
      null,
      controls(board, run.levels, run.levels.length > 1 ? [["each", "each"]] : []),
      Object.keys(run.series).length ? null : el("p.dim", {}, "Nothing was measured yet."),
      factoredCharts(run, board),
    ),
    probed ? section("probes", "Probes", "Measured beside the training, mostly on held-out demonstrations.", probeCharts(run, board)) : "",
    Object.keys(run.series).some(isMetric) ? section("metrics", "Metrics", "What the steps logged.", metricCharts(run, board)) : "",
    section(
      "stages",
      "What each stage did to each side",
      "Before and after the stage, on the same held-out tasks.",
      effectTable(run),
    ),
    run.phases.length
      ? section("phases", "Phases", "Tasks of each phase, by how often they were made into others, and what became of them.", phaseTable(run.phases))
      : "",
    section("decisions", "Decisions", "What gates, schedules and guards decided, and why.", decisionTable([run])),
    run.films.items.length ? section("films", "Episodes", FILMS_LEAD, filmBrowser(run.films)) : "",
    section(
      "trees",
      "Trees",
      "Every turn of the saved tasks. A coloured number is the advantage.",
      treeBrowser(run.trees, run.stages),
    ),
    section("recipe", "Recipe", "What this recipe changes from the defaults.", recipeView(run.recipe, run.changed)),
    section("cost", "Cost", null, costView(run)),
    el("footer", {}, "Written by forethought from the run directory alone."),
  );
  board.redraw();
})();
