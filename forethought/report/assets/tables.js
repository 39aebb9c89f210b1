// The verdict, the numbers and the tables of a run.

const STATUS = { done: ["done", "good"], stopped: ["stopped", "bad"], interrupted: ["interrupted", "warn"], running: ["running or cut off", "warn"] };
const roleNames = (roles) => roles.map((role, i) => [i ? " + " : "", el("b", { style: { "--c": ROLE_COLOURS[role] || "inherit" } }, role)]);
const badge = (index) => el("span.badge", {}, index + 1);

// --- verdict and big numbers ---

function notesBox(notes) {
  return notes.length ? el("div.notes", { role: "note" }, notes.map((note) => el("p", {}, note))) : null;
}

function stageSentences(run, sentences) {
  return el("ol.story", {}, run.stages.map((stage, i) => {
    const [head, ...rest] = sentences[i].split(": ");
    const gates = run.decisions.filter((d) => d.stage === stage.index && d.kind === "gate").map((d) => d.outcome);
    const worst = ["roll_back", "stop", "warn", "pass"].find((o) => gates.includes(o));
    return el("li", {}, badge(stage.index), el("div", {}, el("span.who", {}, head.replace(/^Stage \d+, /, "")), worst ? outcomePill(worst) : null,
      rest.length ? el("p", {}, sentence(rest.join(": "))) : null));
  }));
}

// A strip from 0 to 100 %: interval and dot at the start (hollow) and at the end (full).
function strip(before, after) {
  const at = (v) => 4 + v * 292;
  const part = (p, y, full) => p && [
    known(p.low) ? svg("line", { x1: at(p.low), x2: at(p.high), y1: y, y2: y, class: "ci" }) : null,
    svg("circle", { cx: at(p.value), cy: y, r: 4, class: full ? "full" : "hollow" })];
  return svg("svg", { viewBox: "0 0 300 30", class: "strip", "aria-hidden": "true" },
    svg("line", { x1: 4, x2: 296, y1: 15, y2: 15, class: "track" }),
    before && after ? svg("line", { x1: at(before.value), x2: at(after.value), y1: 15, y2: 15, class: "travel" }) : null,
    [0, 0.25, 0.5, 0.75, 1].map((v) => svg("line", { x1: at(v), x2: at(v), y1: 12, y2: 18, class: "track" })), part(before, 15, false), part(after, 15, true));
}

const interval = (p) => (p && known(p.low) ? `${pct(p.low).replace(NB + "%", "")}–${pct(p.high)}` : "");

function bigNumbers(big) {
  return el("div.bigs", {}, SIDES.map((side) => {
    const { before, after, change } = big[side], last = after || before;
    return el("div.big", { style: { "--c": ROLE_COLOURS[side] } }, el("h2", {}, side), el("p.means", {}, SIDE_MEANS[side]),
      last ? [
        el("p.figures", {}, after ? [el("span.from", {}, pct(before.value)), el("span.arrow", { "aria-label": "to" }, "→")] : null, el("span.to", {}, pct(last.value))),
        strip(after ? before : null, last),
        el("p.small", {}, change ? changeText(change, " points") : "one evaluation", last.n ? el("span.dim", {}, `${whole(last.n)} tasks`) : null),
        interval(last) ? el("p.small.dim", {}, "95" + NB + "% interval ", after && interval(before) ? `${interval(before)} → ` : "", interval(last)) : null,
      ] : el("p.figures", {}, el("span.from", {}, "not measured")));
  }));
}

function changeText(change, unit = "") {
  const tone = change.clear ? (change.value > 0 ? "good" : "bad") : "unclear";
  return el("span.change." + tone, {}, signed(change.value), unit, known(change.low) ? el("small", {}, ` [${signed(change.low)}, ${signed(change.high)}]`) : null);
}

// --- what each stage did to each side ---

function bar(change, scale) { // from the middle: the change, with its interval as a whisker
  if (!change) return null;
  const at = (v) => 60 + (v / scale) * 56;
  const tone = change.clear ? (change.value > 0 ? "good" : "bad") : "unclear";
  return svg("svg", { viewBox: "0 0 120 10", preserveAspectRatio: "none", class: "bar " + tone, "aria-hidden": "true" },
    svg("rect", { x: Math.min(60, at(change.value)), y: 2, width: Math.abs(at(change.value) - 60), height: 6, rx: 1.5 }),
    known(change.low) ? svg("line", { x1: at(change.low), x2: at(change.high), y1: 5, y2: 5, class: "whisker" }) : null,
    svg("line", { x1: 60, x2: 60, y1: 0, y2: 10, class: "zero" }));
}

function effectTable(run) {
  const all = run.stages.flatMap((s) => s.rows.flatMap((r) => Object.values(r.sides))).map((s) => s.change).filter(Boolean);
  const scale = Math.max(0.05, ...all.flatMap((c) => [Math.abs(c.value), Math.abs(c.low || 0), Math.abs(c.high || 0)]));
  const cell = (stage, side, row) => {
    const { before, after, kept, change } = row.sides[side];
    const role = row.level !== null ? null : stage.roles.includes(side) ? el("span.tag.on", { style: { "--c": ROLE_COLOURS[side] } }, "trained")
      : stage.frozen.includes(side) ? el("span.tag", {}, "frozen") : null;
    if (!before && !after) return el("td", {}, role, el("span.dim", {}, "—"));
    return el("td", {}, el("div.beforeafter", {}, pct((before || after).value), before && after ? [" → ", el("b", {}, pct(after.value))] : null, role),
      change ? el("div.delta", {}, changeText(change), bar(change, scale)) : null,
      kept ? el("div.kept", {}, `↩ kept ${pct(kept.value)}`) : null);
  };
  const body = run.stages.map((stage) => el("tbody", {}, stage.rows.map((row) =>
    el(row.level === null ? "tr.stage" : "tr.level", {}, row.level !== null ? el("th", { scope: "row" }, `level ${row.level}`)
      : el("th", { scope: "row" }, badge(stage.index), el("span.name", {}, stage.name), el("div.dim", {}, stage.span ? `${whole(stage.steps)} steps` : "not begun"),
        stage.rolled_back_to === null ? null : el("div.dim", {}, `rolled back to step ${whole(stage.rolled_back_to)}`)),
    SIDES.map((side) => cell(stage, side, row))))));
  const table = el("table.effects", {}, el("thead", {}, el("tr", {}, el("th", {}, "stage"), SIDES.map((side) => el("th", { style: { "--c": ROLE_COLOURS[side] } }, side)))), body);
  table.classList.toggle("flat", run.levels.length > 0);
  const paired = all.some((c) => c.paired);
  return [run.levels.length ? el("div.controls", {}, toggle("by level", false, (on) => table.classList.toggle("flat", !on))) : null, scroll(table),
    el("p.fine", {}, "Changes in points with 95" + NB + "% intervals; colour where the interval excludes zero. ",
      paired ? "Intervals are paired over the same tasks." : "Intervals are Newcombe's for independent samples; on the same tasks they are usually too wide, never a claim too much.")];
}

// --- decisions ---

function decisionTable(runs) { // one run, or several with their label
  const rows = runs.flatMap((run) => run.decisions.map((d) => ({ ...d, label: run.label, colour: run.colour,
    where: (run.stages[d.stage] || {}).name })));
  const quiet = (d) => d.outcome === "pass" || d.outcome === "advance";
  const table = el("table.decisions");
  const draw = (all) => table.replaceChildren(el("thead", {}, el("tr", {}, [runs.length > 1 ? "run" : null, "step", "stage", "decided", "outcome", "reason", "numbers"].filter(Boolean).map((h) => el("th", {}, h)))),
    el("tbody", {}, rows.filter((d) => all || !quiet(d)).map((d) => el("tr", {}, runs.length > 1 ? el("td", {}, runName(d)) : null,
      el("td.n", {}, whole(d.step)), el("td", {}, d.stage < 0 ? "" : [badge(d.stage), d.where || ""]), el("td", {}, el("span.dim", {}, d.kind, " "), d.name),
      el("td", {}, outcomePill(d.outcome)), el("td.reason", {}, nbsp(d.reason)),
      el("td", {}, Object.entries(d.numbers).map(([key, value]) => el("span.pair", {}, key, " ", el("b", {}, known(value) ? num(value) : String(value)))))))));
  const quietCount = rows.filter(quiet).length, open = rows.length <= 12 || quietCount === rows.length;
  draw(open);
  if (!rows.length) return el("p.dim", {}, "No decision was recorded.");
  return [quietCount && quietCount < rows.length ? el("div.controls", {}, toggle(`show the ${quietCount} that only passed`, open, draw)) : null, scroll(table)];
}

const runName = (run) => el("span.run", { style: { "--c": run.colour } }, el("i"), run.label);

// --- the recipe ---

function recipeView(recipe, changed) {
  const set = new Set(changed);
  const touched = (path) => changed.some((key) => key === path || key.startsWith(path + "."));
  const isTable = (v) => v !== null && typeof v === "object" && (!Array.isArray(v) || v.some((x) => x !== null && typeof x === "object"));
  const show = (v) => (typeof v === "string" ? `"${v}"` : JSON.stringify(v)) ?? "null";
  const rows = (value, path) => {
    const entries = Object.entries(value).map(([key, v]) => [key, v, path ? `${path}.${key}` : key]);
    return [
      el("dl.settings", {}, entries.filter(([, v]) => !isTable(v)).map(([key, v, p]) =>
        el(set.has(p) ? "div.set" : "div.usual", {}, el("dt", {}, key), el("dd", {}, show(v))))),
      entries.filter(([, v]) => isTable(v) && Object.keys(v).length).map(([key, v, p]) => {
        const name = Array.isArray(value) ? `${path.split(".").pop()} ${Number(key) + 1}${v.name || v.metric ? ` · ${v.name || v.metric}` : ""}` : key;
        return Array.isArray(v) ? rows(v, p) : el("details" + (touched(p) ? "" : ".usual"), { open: touched(p) }, el("summary", {}, name), rows(v, p));
      })];
  };
  const box = el("div.recipe.onlyset", {}, rows(recipe, ""));
  return [el("div.controls", {}, toggle("every setting", false, (on) => box.classList.toggle("onlyset", !on), "also what the recipe leaves at its default")), box];
}

// --- cost ---

function costView(run) {
  const begun = run.stages.filter((s) => s.span);
  const total = begun.reduce((sum, s) => sum + s.cost.seconds, 0) || 1;
  const { cost, machine } = run;
  const facts = [["time", duration(cost.seconds)], ["steps", whole(cost.steps)], ["tokens sampled", compact(cost.tokens_sampled)], ["tokens trained", compact(cost.tokens_trained)]];
  return [
    el("div.facts", {}, facts.map(([name, value]) => el("div", {}, el("b", {}, value), el("span", {}, name)))),
    el("div.share", { "aria-hidden": "true" }, begun.map((s, i) => el("span", { style: { "flex-grow": s.cost.seconds / total, "--c": OTHER[i % OTHER.length] }, title: `${s.name}: ${duration(s.cost.seconds)}` },
      s.cost.seconds / total > 0.12 ? s.name : ""))),
    scroll(el("table", {}, el("thead", {}, el("tr", {}, ["stage", "kind", "steps", "time", "share", "sampled", "trained"].map((h, i) => el(i > 1 ? "th.n" : "th", {}, h)))),
      el("tbody", {}, begun.map((s) => el("tr", {}, el("td", {}, badge(s.index), s.name), el("td", {}, s.kind), [whole(s.steps), duration(s.cost.seconds), pct(s.cost.seconds / total, 0),
        compact(s.cost.tokens_sampled), compact(s.cost.tokens_trained)].map((v) => el("td.n", {}, v))))))),
    Object.keys(machine).length ? el("dl.machine", {}, Object.entries(machine).map(([key, value]) => el("div", {}, el("dt", {}, key), el("dd", {}, String(value))))) : null];
}
