// The tables of a run: what stages did, what was decided, the recipe, the cost.

// --- what each stage did to each side ---

function bar(change, scale) {
  // from the middle: the change, with its interval as a whisker
  if (!change) return null;
  const at = (v) => 60 + (v / scale) * 56;
  const tone = change.clear ? (change.value > 0 ? "good" : "bad") : "unclear";
  return svg(
    "svg",
    { viewBox: "0 0 120 10", preserveAspectRatio: "none", class: "bar " + tone, "aria-hidden": "true" },
    svg("rect", { x: Math.min(60, at(change.value)), y: 2, width: Math.abs(at(change.value) - 60), height: 6, rx: 1.5 }),
    known(change.low) ? svg("line", { x1: at(change.low), x2: at(change.high), y1: 5, y2: 5, class: "whisker" }) : null,
    svg("line", { x1: 60, x2: 60, y1: 0, y2: 10, class: "zero" }),
  );
}

function effectTable(run) {
  const all = run.stages
    .flatMap((s) => s.rows.flatMap((r) => Object.values(r.sides)))
    .map((s) => s.change)
    .filter(Boolean);
  const scale = Math.max(0.05, ...all.flatMap((c) => [Math.abs(c.value), Math.abs(c.low || 0), Math.abs(c.high || 0)]));
  const cell = (stage, side, row) => {
    const { before, after, kept, change } = row.sides[side];
    const role =
      row.level !== null || !stage.span
        ? null
        : stage.roles.includes(side)
          ? el("span.tag.on", { style: { "--c": ROLE_COLOURS[side] } }, "trained")
          : stage.frozen.includes(side)
            ? el("span.tag", {}, "not trained")
            : null;
    if (!before && !after)
      return el("td", { "data-side": side, style: { "--c": ROLE_COLOURS[side] } }, role, el("span.dim", {}, "—"));
    return el(
      "td",
      { "data-side": side, style: { "--c": ROLE_COLOURS[side] } },
      el(
        "div.beforeafter",
        {},
        pct((before || after).value),
        before && after ? [" → ", el("b", {}, pct(after.value))] : null,
        role,
      ),
      change ? el("div.delta", {}, changeText(change), bar(change, scale)) : null,
      kept ? el("div.kept", {}, `↩ kept ${pct(kept.value)}`) : null,
    );
  };
  const body = run.stages.map((stage) =>
    el(
      "tbody",
      {},
      stage.rows.map((row) =>
        el(
          row.level === null ? "tr.stage" : "tr.level",
          {},
          row.level !== null
            ? el("th", { scope: "row" }, `level ${row.level}`)
            : el(
                "th",
                { scope: "row" },
                badge(stage.index),
                el("span.name", {}, stage.name),
                el("div.dim", {}, stage.span ? `${whole(stage.steps)} steps` : "not begun"),
                stage.attempts > 1 ? el("div.dim", {}, `${stage.attempts} attempts`) : null,
                stage.rolled_back_to === null ? null : el("div.dim", {}, `rolled back to step ${whole(stage.rolled_back_to)}`),
              ),
          SIDES.map((side) => cell(stage, side, row)),
        ),
      ),
    ),
  );
  const table = el(
    "table.effects",
    {},
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        el("th", {}, "stage"),
        SIDES.map((side) => el("th", { style: { "--c": ROLE_COLOURS[side] } }, side)),
      ),
    ),
    body,
  );
  table.classList.toggle("flat", run.levels.length > 0);
  const paired = all.some((c) => c.paired);
  return [
    run.levels.length
      ? el(
          "div.controls",
          {},
          toggle("by level", false, (on) => table.classList.toggle("flat", !on)),
        )
      : null,
    scroll(table),
    el(
      "p.fine",
      {},
      "Changes in points with 95" + NB + "% intervals; colour where the interval excludes zero. ",
      paired
        ? "The intervals marked ≍ compare task by task; the others are Newcombe's for independent samples, on the same tasks usually too wide."
        : "Intervals are Newcombe's for independent samples; on the same tasks they are usually too wide.",
    ),
  ];
}

// --- decisions ---

function decisionTable(runs) {
  // one run, or several with their label
  const rows = runs.flatMap((run) =>
    run.decisions.map((d) => ({ ...d, label: run.label, colour: run.colour, where: (run.stages[d.stage] || {}).name })),
  );
  const quiet = (d) => !rank(d); // a pass, a start, an advance: nothing that anyone must read
  const table = el("table.decisions");
  const draw = (all) =>
    table.replaceChildren(
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          [runs.length > 1 ? "run" : null, "step", "stage", "decided", "outcome", "reason", "numbers"]
            .filter(Boolean)
            .map((h) => el("th", {}, h)),
        ),
      ),
      el(
        "tbody",
        {},
        rows
          .filter((d) => all || !quiet(d))
          .map((d) =>
            el(
              "tr",
              {},
              runs.length > 1 ? el("td", {}, runName(d)) : null,
              el("td.n", {}, whole(d.step)),
              el("td.where", {}, d.stage < 0 ? "" : [badge(d.stage), d.where || ""]),
              el("td", {}, el("span.dim", {}, d.kind, " "), d.name),
              el("td", {}, outcomePill(d.outcome)),
              el("td.reason", {}, nbsp(d.reason)),
              el(
                "td",
                {},
                Object.entries(d.numbers).map(([key, value]) =>
                  el("span.pair", {}, key, " ", el("b", {}, known(value) ? num(value) : value === null ? "—" : String(value))),
                ),
              ),
            ),
          ),
      ),
    );
  const quietCount = rows.filter(quiet).length,
    open = rows.length <= 12 || quietCount === rows.length;
  draw(open);
  if (!rows.length) return el("p.dim", {}, "No decision was recorded.");
  return [
    quietCount && quietCount < rows.length
      ? el("div.controls", {}, toggle(`all ${rows.length}`, open, draw, "also passes, starts and ends"))
      : null,
    scroll(table),
  ];
}

const runName = (run) => el("span.run", { style: { "--c": run.colour } }, el("i"), run.label);

// --- the recipe ---

// One block for the head, one a table, one a stage; below that, dotted names. What is set stands out from what is left at its default.
function recipeView(recipe, changed) {
  const set = new Set(changed);
  const isTable = (v) =>
    v !== null && typeof v === "object" && (!Array.isArray(v) || v.some((x) => x !== null && typeof x === "object"));
  const leaves = (v, path) =>
    isTable(v) && Object.keys(v).length ? Object.entries(v).flatMap(([key, x]) => leaves(x, `${path}.${key}`)) : [[path, v]];
  const row = ([path, v], cut) => {
    const text = typeof v === "string" ? v || '""' : JSON.stringify(v);
    const kind = (set.has(path) ? ".set" : ".usual") + (text.length > 40 ? ".wide" : "");
    return el("div" + kind, {}, el("dt", {}, path.slice(cut)), el("dd", {}, text));
  };
  const block = (title, items, cut) => {
    // items: [dotted path, value]; cut: letters of the path that the title says
    const any = items.some(([path]) => set.has(path));
    const list = items.map((item) => row(item, cut));
    return el("details" + (any ? "" : ".usual"), { open: any }, el("summary", {}, title), el("dl.settings", {}, list));
  };
  const top = Object.entries(recipe);
  const box = el(
    "div.recipe.onlyset",
    {},
    block(
      "run",
      top.filter(([, v]) => !isTable(v)),
      0,
    ),
    top.filter(([key, v]) => isTable(v) && key !== "stage").map(([key, v]) => block(key, leaves(v, key), key.length + 1)),
    (recipe.stage || []).map((stage, i) =>
      block([badge(i), stage.name || stage.kind], leaves(stage, `stage.${i}`), `stage.${i}.`.length),
    ),
  );
  return [
    el(
      "div.controls",
      {},
      toggle("every setting", false, (on) => box.classList.toggle("onlyset", !on), "also what the recipe leaves at its default"),
    ),
    box,
  ];
}

// --- cost ---

function costView(run) {
  const begun = run.stages.filter((s) => s.span);
  const total = begun.reduce((sum, s) => sum + s.cost.seconds, 0) || 1;
  const { cost, machine } = run;
  const facts = [
    ["time", duration(cost.seconds)],
    ["steps", whole(cost.steps)],
    ["tokens sampled", compact(cost.tokens_sampled)],
    ["tokens trained", compact(cost.tokens_trained)],
  ];
  return [
    el(
      "div.facts",
      {},
      facts.map(([name, value]) => el("div", {}, el("b", {}, value), el("span", {}, name))),
    ),
    el(
      "div.share",
      { "aria-hidden": "true" },
      begun.map((s, i) =>
        el(
          "span",
          {
            style: { "flex-grow": s.cost.seconds / total, "--c": OTHER[i % OTHER.length] },
            title: `${s.name}: ${duration(s.cost.seconds)}`,
          },
          s.cost.seconds / total > 0.12 ? s.name : "",
        ),
      ),
    ),
    scroll(
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["stage", "kind", "steps", "time", "share", "sampled", "trained"].map((h, i) => el(i > 1 ? "th.n" : "th", {}, h)),
          ),
        ),
        el(
          "tbody",
          {},
          begun.map((s) =>
            el(
              "tr",
              {},
              el("td.where", {}, badge(s.index), s.name),
              el("td", {}, s.kind),
              [
                whole(s.steps),
                duration(s.cost.seconds),
                pct(s.cost.seconds / total, 0),
                compact(s.cost.tokens_sampled),
                compact(s.cost.tokens_trained),
              ].map((v) => el("td.n", {}, v)),
            ),
          ),
        ),
      ),
    ),
    run.probes && Object.keys(run.probes.seconds).length ? probeCost(run) : null,
    Object.keys(machine).length
      ? el(
          "dl.machine",
          {},
          Object.entries(machine).map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, String(value)))),
        )
      : null,
  ];
}
