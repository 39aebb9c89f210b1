// From columns to charts: which series make a chart, in which colour, on which x axis and at which level.

const view = { axis: "step", level: "all", smooth: true, fit: false };
const RUNS = Array.from({ length: 8 }, (_, i) => `var(--r${i})`); // no run has the colour of a side
const OTHER = Array.from({ length: 8 }, (_, i) => `var(--c${i})`);

const GROUPS = {
  // chart of metrics -> its title, its note, the unit of its y axis, what it means; in this order
  entropy: ["Entropy by role", "nats per token", "nats", "How undecided the policy is at each token. 0: one token has all the probability."],
  loss: ["Losses", "", "loss", "What the update minimises; pg: the policy gradient's part, sft: that of demonstrations."],
  reward: ["Rewards", "mean of the step", "reward", "The weighted sum of a turn's reward parts."],
  parts: ["Reward parts", "mean of the step", "reward", "Each part of a reward by itself, before its weight."],
  ends: [
    "Refused, truncated, failed, without room",
    "share of turns",
    "share",
    "Refused: the parser did not accept the turn. Truncated: no stop within the budget. Failed: foreign code raised or hung; never reward 0. Without room: the context was full.",
  ],
  lengths: ["Length of a turn", "tokens, mean", "tokens", "Sampled tokens of one turn of the role."],
  groups: [
    "Groups without a spread",
    "share; they train nothing",
    "share",
    "A group is what is compared: samples of one role under one branch. Equal rewards give no advantage.",
  ],
  filtered: ["Groups left out", "count, by reason", "groups", "Groups that the stage's filter did not let into the batch."],
  curriculum: ["Curriculum", "what the sampler of tasks sees", "", "How often tasks of each level are drawn, and how well they go."],
  gap: [
    "Sampler and trainer",
    "mean difference of log-probs, nats",
    "nats",
    "The sampler's log-probs against the trainer's for the same tokens. With few trained tokens in a step the mean is noisy. An update that reads what sampling left compares nothing: its step has no point.",
  ],
  gap_max: ["Sampler and trainer, largest", "difference of log-probs, nats", "nats", "The largest such difference of a token in the step."],
  clip: ["Clipped tokens", "share", "share", "Tokens whose probability ratio left the clip range; they give no gradient."],
  kl: ["KL divergence", "nats", "nats", "How far the policy is from its reference."],
  grad_norm: ["Gradient norms", "before clipping", "norm", "Length of the gradient over all weights of the policy."],
  lr: ["Learning rate", "", "rate", "After warm-up and schedule."],
  tokens: ["Tokens per step", "", "tokens", "Sampled and trained."],
  tokens_per_second: ["Speed", "tokens per second", "tokens / s", "Sampled and trained tokens over the step's time."],
  seconds: ["Time per step", "seconds", "s", "By part of the step."],
  interference: ["Interference", "change of success on held-out demonstrations since the stage's start"],
  probe: ["Held-out demonstrations", "teacher-forced; entropy and KL in nats per token"],
  probe_rel: ["Against the stage's start", "ratio, on held-out demonstrations"],
  conflict: ["Gradient conflict", "cosine of the two roles' gradients"],
  meaning: ["Meanings", "of what is sampled for one task; entropy in nats"],
  format: ["Formats", "of the rollouts; entropy in nats"],
};
const ALONE = { "groups/zero": "groups", "gap/sampler_max": "gap_max" };
const TOGETHER = { refused: "ends", truncated: "ends", failed: "ends", overlong: "ends", groups: "filtered" };

// --- small tools of the plots ---

function ticks([low, high], most, { sexagesimal = false, whole = false } = {}) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const raw = span / Math.max(most, 1.5);
  const size = 10 ** Math.floor(Math.log10(raw));
  let step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw);
  if (whole) step = Math.max(step, 1); // there is no half a step
  if (sexagesimal && raw > 10)
    step =
      [15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400].find((s) => s >= raw) ||
      Math.ceil(raw / 86400) * 86400;
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step)
    out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
}

function decades([low, high]) {
  // of a logarithmic range, given as powers of ten; where few fit, 2 and 5 between them
  const out = [];
  for (let k = Math.floor(low); k <= Math.ceil(high); k++)
    for (const m of high - low < 2.5 ? [1, 2, 5] : [1]) out.push(m * 10 ** k);
  return out.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
}

// Of lines that lie on an earlier one for a quarter of the points that both have: line -> a dash, so that what is below shows.
function dashes(lines, plot) {
  const found = new Map();
  lines.forEach((line, j) => {
    const hides = lines.slice(0, j).filter((other) => !other.thin && !line.thin && lieTogether(line, other, plot));
    if (hides.length) found.set(line, ` dash${1 + ((hides.length - 1) % 3)}`);
  });
  return found;
}

function lieTogether(a, b, plot) {
  const every = Math.max(1, Math.floor(a.x.length / 200)); // a sample of long lines is enough
  let same = 0,
    all = 0;
  for (let i = 0; i < a.x.length; i += every) {
    const k = near(b, a.x[i]);
    if (k === null) continue;
    all += 1;
    same += Math.abs(plot.Y(a.y[i]) - plot.Y(b.y[k])) < 2;
  }
  return all > 1 && same >= all / 4;
}

function fit(text, short, room) {
  // about 6.4 px a letter
  if (text.length * 6.4 <= room) return text;
  return room > 60 ? text.slice(0, Math.floor(room / 6.4) - 1) + "…" : room > 8 ? short : "";
}

const rank = (mark) => ({ bad: 2, warn: 1 })[TONES[mark.outcome]] || Number(mark.outcome === "share");

function lastStanding(line) {
  for (let i = line.x.length - 1; i >= 0; i--) if (!line.lost[i]) return i;
  return line.x.length ? line.x.length - 1 : null;
}

function near(line, x) {
  // the point of a line that stands for x; none beyond its ends
  const n = line.x.length;
  if (!n || x < line.x[0] || x > line.x[n - 1]) return null;
  let low = 0,
    high = n - 1;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (line.x[mid] < x) low = mid + 1;
    else high = mid;
  }
  const at = low > 0 && x - line.x[low - 1] < line.x[low] - x ? low - 1 : low;
  const across = line.part && line.x[at] !== x && line.part[at] !== line.part[at + (line.x[at] < x ? 1 : -1)];
  return across ? null : at; // where a line breaks, it has no value
}

// Points that a line may join. It breaks where training was thrown away, where whole stages did not have the metric, and
// between its parts: what is measured since a stage's start begins anew with each.
function stretches(line) {
  const out = [];
  for (let i = 0; i < line.x.length; i++) {
    const run = out[out.length - 1],
      before = i - 1;
    const near = run && (line.part ? line.part[i] === line.part[before] : line.stage[i] - line.stage[before] < 2);
    if (near && run.lost === line.lost[i]) run.at.push(i);
    else out.push({ lost: line.lost[i], at: near && line.lost[i] ? [before, i] : [i] });
  }
  return out;
}

function smoothed(y, same) {
  // moving mean over a thirtieth of the line; never across stages or a roll back
  const half = Math.max(2, Math.round(y.length / 60));
  return y.map((_, i) => {
    let sum = 0,
      n = 0;
    for (let k = Math.max(0, i - half); k <= Math.min(y.length - 1, i + half); k++)
      if (same(i, k)) {
        sum += y[k];
        n += 1;
      }
    return sum / n;
  });
}

// --- lines of a run ---

const SINCE = /^(interference|probe_rel|conflict)\/|^probe\/kl_start_/; // belongs to its stage, and to no other

// `within`: the stages (by index) that the line shows; null: all.
function makeLine(run, key, label, colour, smooth = false, within = null) {
  const series = run.series[key] && cutTo(run, run.series[key], within);
  if (!series || !series.i.length) return null;
  const pick = (column) => series.i.map((i) => column[i]);
  const soft = smooth && series.v.length > 12,
    lost = pick(run.axis.lost),
    stage = pick(run.axis.stage);
  const y = soft ? smoothed(series.m || series.v, (a, b) => stage[a] === stage[b] && lost[a] === lost[b]) : series.v;
  return {
    id: label,
    label,
    colour,
    x: pick(run.axis[view.axis]),
    y,
    raw: soft ? series.v : null,
    lo: series.lo,
    hi: series.hi,
    lost,
    stage,
    part: SINCE.test(key) ? pick(run.axis.begun) : null,
  };
}

function cutTo(run, series, within) {
  if (!within) return series;
  const at = series.i.map((_, k) => k).filter((k) => within.includes(run.axis.stage[series.i[k]]));
  return Object.fromEntries(Object.entries(series).map(([name, column]) => [name, at.map((k) => column[k])]));
}

const stageBands = (run) =>
  run.stages
    .filter((s) => s.span)
    .map((s) => ({
      from: s.span[view.axis][0],
      to: s.span[view.axis][1],
      label: `${s.index + 1} ${s.name}`,
      short: String(s.index + 1),
    }));

const lostRanges = (run) => run.rolled_back.map((r) => ({ from: r.from[view.axis], to: r.to[view.axis] }));

const marksOf = (run, prefix = "") =>
  run.decisions
    .map((d) => ({
      x: d.at[view.axis],
      outcome: d.outcome,
      reason: d.reason,
      label: `${prefix}${d.kind} ${d.name}`,
      head: `step ${whole(d.step)}`,
    }))
    .sort((a, b) => a.x - b.x);

function domain(runs) {
  const columns = runs.map((run) => run.axis[view.axis]).filter((column) => column.length);
  const high = Math.max(...columns.map((column) => column[column.length - 1]), 0);
  return [Math.min(...columns.map((column) => column[0]), high), high || 1];
}

function frame(run, more) {
  if (!more.lines.length) return null; // the run does not have these metrics
  const rest = { bands: stageBands(run), lost: lostRanges(run), marks: [], axis: view.axis, domain: domain([run]) };
  return { ...rest, format: num, height: 210, ...more };
}
const shares = (unit = "share") => ({
  share: true,
  unit,
  fixed: view.fit ? null : [0, 1],
  format: (v, exact) => pct(v, exact || Math.abs(v * 100 - Math.round(v * 100)) > 1e-6 ? 1 : 0),
});
const atLevel = (side) => (view.level === "all" ? side : `${side}@${view.level}`);
const levelColour = (i, n) =>
  `color-mix(in oklab, var(--deep) ${n > 1 ? Math.round((i / (n - 1)) * 100) : 100}%, var(--shallow))`;

function controls(board, levels, extra = []) {
  const again = () => {
    board.zoom = null;
    board.redraw();
  };
  const some = (axis) => (DATA.runs || [DATA]).some((run) => run.axis[axis].some((v) => v > 0));
  const axes = Object.keys(AXES)
    .filter((axis) => axis === "step" || some(axis))
    .map((axis) => [axis, AXES[axis].label]);
  return el(
    "div.controls",
    {},
    choice("x axis", axes, view.axis, (axis) => {
      view.axis = axis;
      again();
    }),
    levels.length
      ? choice("level", [["all", "all"], ...levels.map((l) => [l, l]), ...extra], view.level, (level) => {
          view.level = level;
          board.redraw();
        })
      : null,
    el(
      "div.choice",
      {},
      toggle(
        "fit y",
        view.fit,
        (on) => {
          view.fit = on;
          board.redraw();
        },
        "let the shares fill the height",
      ),
      toggle(
        "smooth",
        view.smooth,
        (on) => {
          view.smooth = on;
          board.redraw();
        },
        "moving mean of step metrics; the raw line stays, faint",
      ),
    ),
    el("p.hint", {}, "Drag to zoom, double-click to reset."),
  );
}

// --- the charts of one run ---

function factoredCharts(run, board) {
  const main = new Plot(board, () =>
    view.level === "each"
      ? null
      : frame(run, {
          title: `${listed(SIDES)}${view.level === "all" ? "" : ` at level ${view.level}`}`,
          note: "share of held-out tasks solved; the ribbon is the 95 % interval",
          lines: SIDES.map((side) => makeLine(run, "eval/" + atLevel(side), side, ROLE_COLOURS[side])).filter(Boolean),
          marks: marksOf(run),
          rail: true,
          height: 360,
          ...shares("tasks solved"),
        }),
  );
  const each = SIDES.map(
    (side) =>
      new Plot(board, () =>
        view.level !== "each"
          ? null
          : frame(run, {
              title: side,
              note: SIDE_MEANS[side],
              height: 260,
              lines: run.levels
                .map((l, i) => makeLine(run, `eval/${side}@${l}`, `level ${l}`, levelColour(i, run.levels.length)))
                .filter(Boolean),
              ...shares("tasks solved"),
            }),
      ),
  );
  return [
    main.figure,
    el(
      "div.grid.three",
      {},
      each.map((p) => p.figure),
    ),
  ];
}

function groupOf(key, roles) {
  const [prefix, rest] = key.split("/", 2);
  if (ALONE[key]) return ALONE[key];
  if (prefix === "tokens" && roles.includes(rest)) return "lengths";
  if (prefix === "reward" && rest && rest.includes(".")) return "parts";
  return TOGETHER[prefix] || prefix;
}

function labelOf(key, group) {
  return group === "ends" ? key.replace("/", " ") : key.includes("/") ? key.slice(key.indexOf("/") + 1) : key;
}

const PROBED = /^(interference|probe|probe_rel|conflict|meaning|format)\//; // have charts of their own
const isMetric = (name) => !PROBED.test(name) && !name.startsWith("eval/");
const rolesOf = (run) => [...new Set(run.stages.flatMap((stage) => stage.roles))];

// Metric names by chart, the known ones first; whatever else a run writes gets a chart of its own prefix.
function grouped(names, roles) {
  const found = new Map(Object.keys(GROUPS).map((g) => [g, []]));
  for (const name of names) {
    if (name.startsWith("eval/")) continue;
    const group = groupOf(name, roles);
    if (!found.has(group)) found.set(group, []);
    found.get(group).push(name);
  }
  return [...found].filter(([, keys]) => keys.length);
}

function metricCharts(run, board) {
  const figures = grouped(Object.keys(run.series).filter(isMetric), rolesOf(run)).map(([group, keys]) => {
    const [title, note, unit, means] = GROUPS[group] || [group, ""];
    const roleColour = (label) => ROLE_COLOURS[label.replace(/^sft_/, "")];
    const order = [...ROLES, "e2e"], place = (key) => order.indexOf(labelOf(key, group)) + 1 || order.length + 1;
    keys.sort((a, b) => place(a) - place(b)); // plan before act, as everywhere
    const others = keys.some((key) => roleColour(labelOf(key, group))) ? 3 : 0; // beside roles, colours that are not a role's
    const plot = new Plot(board, () =>
      frame(run, {
        title,
        note,
        unit,
        means,
        lines: keys.map((key, i) => {
          const label = labelOf(key, group);
          return makeLine(run, key, label, roleColour(label) || OTHER[(i + others) % OTHER.length], view.smooth);
        }),
      }),
    );
    return [group, plot.figure];
  });
  const first = ["entropy", "loss", "reward", "parts"];
  return [
    el(
      "div.grid.two",
      {},
      figures.filter(([g]) => first.includes(g)).map(([, f]) => f),
    ),
    el(
      "div.grid.three",
      {},
      figures.filter(([g]) => !first.includes(g)).map(([, f]) => f),
    ),
  ];
}
