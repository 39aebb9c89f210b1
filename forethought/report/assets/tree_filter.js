// Which trees are shown, and how the page's address says it. It touches no element: the rules are those of traces/find.py.

const NO_FILTER = {
  step: null,
  stage: null,
  level: null,
  task: "",
  reason: "",
  signs: [],
  solved: null,
  low: null, // of a quality; a missing end is open
  high: null,
  measure: "outcome",
  order: "newest",
  tree: null, // step.place of the one that is open
};

const holds = (text, ...where) => where.some((place) => (place || "").toLowerCase().includes(text.toLowerCase()));
const treeKey = (tree) => `${tree.step}.${tree.place}`;

function qualityFits(node, f) {
  const value = (node.quality || {})[f.measure];
  return typeof value === "number" && value >= (f.low ?? 0) && value <= (f.high ?? 1);
}

function passes(tree, f) {
  return (
    ["step", "stage", "level", "solved"].every((key) => f[key] === null || tree[key] === f[key]) &&
    f.signs.every((sign) => tree.signs.includes(sign)) &&
    holds(f.task, tree.task, tree.prompt) &&
    (!f.reason || [...tree.reasons, ...tree.nodes.map((node) => node.reason)].some((text) => text && holds(f.reason, text))) &&
    ((f.low === null && f.high === null) || tree.nodes.some((node) => qualityFits(node, f)))
  );
}

// What a node must be for the filter to have asked for it; null: the filter asks for no node in particular.
function wantedNode(f) {
  const of = {
    wrong: (n) => "valid" in (n.reward_parts || {}) && n.verdict === "wrong",
    execution_failed: (n) => n.verdict === "execution_failed",
    refused: (n) => n.verdict === "refused",
    truncated: (n) => n.status === "truncated",
    broke: (n) => n.verdict === "failed",
    overlong: (n) => n.verdict === "overlong",
    disagree: (n) => (n.disagrees || []).length > 0,
  };
  const tests = f.signs.map((sign) => of[sign] || ((n) => (n.disagrees || []).includes(sign)));
  if (f.low !== null || f.high !== null) tests.push((n) => qualityFits(n, f));
  return tests.length ? (node) => tests.some((test) => test(node)) : null;
}

const worst = (tree) => Math.min(...tree.nodes.map((node) => (node.quality || {}).outcome ?? 2));
const ORDERS = {
  newest: ["newest first", (a, b) => b.step - a.step || a.place - b.place],
  oldest: ["oldest first", (a, b) => a.step - b.step || a.place - b.place],
  disagreement: ["most disagreement first", (a, b) => b.disagreements - a.disagreements || ORDERS.newest[1](a, b)],
  worst: ["worst outcome first", (a, b) => worst(a) - worst(b) || ORDERS.newest[1](a, b)],
  longest: ["most tokens first", (a, b) => b.sampled - a.sampled || ORDERS.newest[1](a, b)],
};

const select = (trees, f) => trees.filter((tree) => passes(tree, f)).sort(ORDERS[f.order][1]);

// --- as an address and as a command ---

const SOLVED = { yes: true, no: false };

function toFragment(f) {
  const said = new URLSearchParams();
  for (const [key, value] of Object.entries(f)) {
    const usual = NO_FILTER[key];
    if (Array.isArray(value) ? !value.length : value === usual) continue;
    if (key === "solved") said.set(key, value ? "yes" : "no");
    else said.set(key, Array.isArray(value) ? value.join(",") : String(value));
  }
  return String(said) ? `#trees?${said}` : "#trees";
}

// What a fragment asks for; null where it speaks of something else. What makes no sense in it is passed over.
function fromFragment(text, signs, measures) {
  if (!text.startsWith("#trees?")) return null;
  const said = new URLSearchParams(text.slice("#trees?".length));
  const number = (key) => (said.get(key) && Number.isFinite(Number(said.get(key))) ? Number(said.get(key)) : null);
  const one = (key, known) => (known.includes(said.get(key)) ? said.get(key) : NO_FILTER[key]);
  return {
    ...NO_FILTER,
    step: number("step"),
    stage: number("stage"),
    level: number("level"),
    low: number("low"),
    high: number("high"),
    task: said.get("task") || "",
    reason: said.get("reason") || "",
    tree: said.get("tree"),
    signs: (said.get("signs") || "").split(",").filter((sign) => signs.includes(sign)),
    solved: SOLVED[said.get("solved")] ?? null,
    measure: one("measure", measures),
    order: one("order", Object.keys(ORDERS)),
  };
}

// The same filter over everything on disk.
function toCommand(f) {
  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const words = ["forethought traces DIR"];
  if (f.step !== null) words.push(`--step ${f.step}`);
  if (f.stage !== null) words.push(`--stage ${f.stage + 1}`);
  if (f.level !== null) words.push(`--level ${f.level}`);
  if (f.task) words.push(`--task ${quoted(f.task)}`);
  if (f.reason) words.push(`--reason ${quoted(f.reason)}`);
  words.push(...f.signs.map((sign) => `--sign ${sign}`));
  if (f.solved !== null) words.push(f.solved ? "--solved" : "--failed");
  if (f.low !== null || f.high !== null) {
    words.push(`--quality ${f.low ?? 0}-${f.high ?? 1}`);
    if (f.measure !== NO_FILTER.measure) words.push(`--measure ${f.measure}`);
  }
  return words.join(" ");
}
