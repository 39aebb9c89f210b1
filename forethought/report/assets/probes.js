// What the probes measured: interference, uncertainty with its phases, drift, gradient conflict, meanings and formats, and the cost.

const PHASES = { 1: [ROLES[ACTS], "acts"], 2: [ROLES[0], "plans"] }; // short name and tone of those that have one
const TURNS = ["isolate", "share", "retry", "roll_back", "stop", "fork", "core", "random", "fuse"];
const LAYERS = ["embed", "early", "middle", "late", "head"];
const points = (v, exact) => (exact ? signed(v) + NB + "points" : minus((v > 0 ? "+" : "") + Number((v * 100).toFixed(1))));

function probeCharts(run, board) {
  const chart = (make) => {
    const first = make(); // what a run lacks now it lacks on every axis: no frame for it
    return first && first.lines.length ? new Plot(board, () => frame(run, make())).figure : null;
  };
  const pair = [() => uncertainty(run), () => drift(run)].map(chart).filter(Boolean);
  const rest = [conflict, meanings, formats, success, relative, formatSuccess].map((of) => chart(() => of(run))).filter(Boolean);
  return [
    run.probes.sentences.length
      ? el(
          "ul.findings",
          {},
          run.probes.sentences.map((text) => el("li", {}, nbsp(text))),
        )
      : null,
    chart(() => interference(run)),
    el(pair.length > 1 ? "div.grid.two" : "div.grid", {}, pair),
    el("div.grid.three", {}, rest),
  ];
}

const present = (lines) => lines.filter(Boolean);
const byRole = (run, name) => present(ROLES.map((role) => makeLine(run, `${name}_${role}`, role, ROLE_COLOURS[role])));

// From the start of the first stage that is shown to the end: what no stage before it could have is no empty half of a chart.
function shownSpan(run, lines) {
  const first = Math.min(...lines.flatMap((line) => line.stage));
  const [low, high] = domain([run]);
  const { span } = run.stages[first] || {};
  const from = span ? span[view.axis][0] : low;
  return { domain: [from, high], bands: stageBands(run).filter((band) => band.to > from) };
}

// The change of a role while the other one trains; dashed beside it, what the role that trains has gained.
function interference(run) {
  const stages = (part, role) => run.probes.watched.flatMap((stage, i) => (stage[part].includes(role) ? [i] : []));
  const alone = (role, i) => !run.stages[i].roles.includes(role);
  const roles = ROLES.filter((role) => run.series[`interference/${role}`]);
  const lines = roles.map((role) => {
    const within = stages("others", role);
    const label = within.every((i) => alone(role, i)) ? `${role}, not trained` : role;
    return makeLine(run, `interference/${role}`, label, ROLE_COLOURS[role], false, within);
  });
  const gains = roles.map((role) => {
    const line = makeLine(run, `interference/${role}`, `${role}, trained`, ROLE_COLOURS[role], false, stages("own", role));
    return line && { ...line, lo: null, hi: null, thin: true };
  });
  const shown = present([...lines, ...gains]);
  return {
    ...shownSpan(run, shown),
    title: "Interference",
    note: "change of success since the stage's start, in points; the ribbon is the 95 % interval; dashed: the role that trains",
    lines: shown,
    marks: marksOf(run).filter((mark) => TURNS.includes(mark.outcome)),
    rail: true,
    height: 320,
    least: [-0.05, 0.05],
    format: points,
  };
}

function uncertainty(run) {
  const strip = run.probes.phases.map((p) => ({
    from: p.from[view.axis],
    to: p.to[view.axis],
    label: p.label,
    short: (PHASES[p.phase] || [""])[0],
    tone: (PHASES[p.phase] || ["", "none"])[1],
  }));
  const lines = byRole(run, "probe/entropy");
  const log = lines.every((line) => line.y.every((v) => v > 0));
  return {
    title: "Uncertainty by role",
    unit: "nats",
    means: "On held-out demonstrations, teacher-forced. The strip above: HICRA's two phases (arXiv 2509.03646).",
    note: `entropy, nats per token${log ? ", on a logarithmic scale" : ""}`,
    lines,
    strip,
    log,
    height: 280,
  };
}

function drift(run) {
  const found = (line) => `${line.label}, to the model as found`;
  const base = byRole(run, "probe/kl_base").map((line) => ({ ...line, thin: true, id: found(line), label: found(line) }));
  const lines = [...byRole(run, "probe/kl_start"), ...base];
  return {
    ...shownSpan(run, lines),
    title: "Drift",
    unit: "nats",
    means: "How far each role has moved on held-out demonstrations.",
    note: `KL to the stage's start, nats per token${base.length ? "; dashed: to the model as the run found it" : ""}`,
    lines,
    height: 280,
  };
}

function conflict(run) {
  const lines = LAYERS.map((group, i) => makeLine(run, `conflict/${group}`, group, levelColour(i, LAYERS.length)));
  const all = makeLine(run, "conflict/all", "all weights", "var(--ink)");
  return {
    title: "Gradient conflict",
    unit: "cosine",
    means: "Gradients of the roles on the shared weights. Below 0 a step for one undoes a step for the other.",
    note: "cosine of the two roles' gradients by layers; below 0 they pull apart",
    lines: present([all, ...lines.map((line) => line && { ...line, thin: true })]),
    least: [-0.1, 0.1],
  };
}

function meanings(run) {
  return {
    title: `Semantic entropy of ${ROLES[0]}`,
    means: `Turns of ${ROLES[0]} that mean the same count as one. Falling entropy: it has settled.`,
    note: "nats, over the meanings of what is sampled for one task; distinct: their number",
    lines: present([
      makeLine(run, `meaning/${ROLES[0]}`, "entropy", "var(--plan)", view.smooth),
      makeLine(run, "meaning/distinct", "distinct", OTHER[3], view.smooth),
    ]),
  };
}

function formatLines(run, name) {
  const keys = Object.keys(run.series).filter((key) => key.startsWith(name));
  return keys.map((key, i) => makeLine(run, key, key.slice(name.length), OTHER[(i + 3) % OTHER.length], view.smooth));
}

const formats = (run) => ({ title: "Formats", note: "share of rollouts", lines: formatLines(run, "format/share_"), ...shares() });
const formatSuccess = (run) => ({
  title: "Success by format",
  note: "share of its rollouts",
  lines: formatLines(run, "format/right_"),
  ...shares(),
});
const success = (run) => ({
  title: "Demonstrations reproduced",
  note: "share whose every token is the most likely one",
  lines: byRole(run, "probe/success"),
  ...shares(),
});
const relative = (run) => ({
  title: "Relative perplexity",
  note: "of held-out demonstrations; the stage's start is 1",
  lines: byRole(run, "probe_rel/ppl"),
});

// --- what they cost ---

const PROBE_NAMES = { held_out: "held-out demonstrations", conflict: "gradient conflict", plans: "meanings and formats" };
const probeSeconds = (run) => Object.values(run.probes.seconds).reduce((sum, s) => sum + s, 0);
const probeShare = (run) =>
  `${duration(probeSeconds(run))}, ${pct(run.cost.seconds ? probeSeconds(run) / run.cost.seconds : 0)} of the run`;

function probeCost(run) {
  const share = (s) => pct(run.cost.seconds ? s / run.cost.seconds : 0);
  const rows = [...Object.entries(run.probes.seconds), ["all probes", probeSeconds(run)]];
  return el(
    "div.probecost",
    {},
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
            ["probe", "time", "of the run"].map((h, i) => el(i ? "th.n" : "th", {}, h)),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map(([name, s]) =>
            el("tr", {}, el("td", {}, PROBE_NAMES[name] || name), el("td.n", {}, duration(s)), el("td.n", {}, share(s))),
          ),
        ),
      ),
    ),
  );
}
