// One tree: the task, every turn under the one that it follows, what each was judged and what credit it got. Long texts are folded.

const VERDICTS = {
  right: ["right", "good"],
  wrong: ["wrong", "bad"],
  accepted: ["accepted", "plain"],
  execution_failed: ["right, an execution failed", "warn"],
  refused: ["refused", "refused"],
  failed: ["broke", "plain"],
  overlong: ["no room", "plain"],
  unjudged: ["not judged", "plain"],
};
const FOLD = { above: 900, head: 420, tail: 320 }; // characters; the tail of an answer is where it says its result
const PLANS = ROLES[ACTS - 1]; // the role whose turn the task's oracle writes
const tone = (node) => (VERDICTS[node.verdict] || ["", "plain"])[1];

// What hangs from the prompt: the last turn of each leading branch, else all that was said there.
function firstOf(tree) {
  const first = tree.nodes.filter((n) => n.executions && !n.depth);
  return first.length ? first : tree.nodes.filter((n) => n.role && !n.depth);
}

// A tone for a leading turn: how its executions went where there were any, else what the verifier said of it.
function leadTone(node) {
  const [hits, n] = node.executions || [0, 0];
  if (!n) return tone(node);
  return hits === n ? "good" : hits ? "warn" : "bad";
}

// `wanted`: what the filter asks for (wantedNode), or null. `signs`: name -> label.
function treeView(tree, wanted, signs) {
  const roots = tree.nodes.filter((n) => n.parent === null);
  const done = firstOf(tree).reduce(([a, b], n) => [a + (n.executions || [0, 0])[0], b + (n.executions || [0, 0])[1]], [0, 0]);
  const about = [
    tree.domain,
    `level ${tree.level}`,
    `step ${whole(tree.step)}`,
    done[1] ? `${done[0]} of ${done[1]} executions succeeded` : "",
    tree.sampled ? `${whole(tree.sampled)} tokens sampled` : "",
  ];
  return el(
    "article",
    {},
    el("header", {}, el("h3", {}, tree.task), el("span.dim", {}, about.filter(Boolean).join(" · "))),
    el(
      "div.signs",
      {},
      tree.signs.filter((sign) => sign !== "disagree").map((sign) => el("span.tag", {}, signs[sign])),
    ),
    el(
      "div.given" + (tree.oracle_plan ? "" : ".alone"),
      {},
      el(
        "div",
        {},
        el("h4", {}, "task"),
        folded(tree.prompt || ""),
        tree.context ? el("details", {}, el("summary", {}, "context"), el("pre", {}, tree.context)) : null,
      ),
      tree.oracle_plan
        ? el("div.oracle", {}, el("h4", {}, tree.free_text ? "reference" : "oracle"), folded(tree.oracle_plan))
        : null,
    ),
    el(
      "div.nodes",
      {},
      roots.map((root) => nodeView(tree, root, { wanted, signs }, false)),
    ),
  );
}

// A node and what lies under it. `inside`: a node above it is what the filter asked for.
function nodeView(tree, node, look, inside) {
  const { wanted, signs } = look;
  const kids = tree.nodes.filter((n) => n.parent === node.id);
  const mine = !wanted || inside || wanted(node);
  const below = kids.map((kid) => nodeView(tree, kid, look, mine && node.role));
  if (!node.role) return [node.parent === null ? null : el("pre.observation", { title: "observation" }, node.text), pictures(node), below];
  const asked = (n) => wanted(n) || tree.nodes.some((kid) => kid.parent === n.id && asked(kid));
  const open = wanted ? !inside && asked(node) : node.executions && node.number === 1;
  const [hits, n] = node.executions || [0, 0];
  const summary = [
    el("span.role", {}, `${node.role} ${node.number}`),
    node.verdict ? pill(...VERDICTS[node.verdict]) : null,
    n ? pill(`${hits}/${n}`, leadTone(node)) : null,
    node.status === "truncated" ? pill("cut off", "warn") : null,
    known(node.advantage) ? advantage(node.advantage) : null,
    el("span.preview", {}, node.text.slice(0, 300).replace(/\s+/g, " ")),
  ];
  const marked = node.role === PLANS && "valid" in (node.reward_parts || {}) && tree.oracle_plan && !tree.free_text && node.text.length <= FOLD.above;
  const body = [
    marked ? el("pre", {}, besideOracle(node.text, tree.oracle_plan)) : folded(node.text),
    node.reason ? el("p.reason", {}, node.reason) : null,
    (node.disagrees || []).length
      ? el(
          "p.reason",
          {},
          node.disagrees.map((sign) => pill(signs[sign], "warn")),
        )
      : null,
    facts(node),
    below,
  ];
  const dimmed = mine || asked(node) ? "" : ".off";
  const colour = ROLE_COLOURS[node.role] || "var(--ink2)";
  return el("details.node" + dimmed, { open, style: { "--c": colour } }, el("summary", {}, summary), el("div.inside", {}, body));
}

// What an observation showed; an image that the page has no room for is its name.
function pictures(node) {
  return (node.images || []).map((name) => {
    const src = DATA.trees.images[name];
    return src ? el("img.seen", { src, alt: name, title: `images/${name}` }) : el("p.dim", {}, `images/${name}`);
  });
}

// A text; of a long one its beginning and its end, and the rest when it is asked for.
function folded(said) {
  const text = said.replace(/^\n+|\n+$/g, "");
  const box = el("pre");
  const draw = (open) => {
    const cut = text.length - FOLD.head - FOLD.tail;
    const label = open ? "show less" : `… ${whole(cut)} more characters …`;
    const button = el("button.fold", { type: "button", "aria-expanded": String(open), onclick: () => draw(!open) }, label);
    const parts = open ? [text, button] : [text.slice(0, FOLD.head), button, text.slice(-FOLD.tail)];
    box.replaceChildren(...(text.length > FOLD.above ? parts : [text]));
  };
  draw(false);
  return box;
}

function advantage(value) {
  const strength = Math.min(Math.abs(value) / 1.5, 1);
  return el(
    "span.advantage." + (value > 0 ? "up" : value < 0 ? "down" : "none"),
    { style: { "--s": `${Math.round(12 + strength * 58)}%` }, title: "advantage, mean over its tokens" },
    (value > 0 ? "+" : "") + minus(value.toFixed(2)),
  );
}

function besideOracle(text, oracle) {
  // the first word that departs from the oracle's is marked; it need not be wrong
  const words = text.split(/(\s+)/),
    other = oracle.trim().split(/\s+/);
  let k = 0;
  for (let i = 0; i < words.length; i++) {
    if (!words[i].trim()) continue;
    if (words[i] !== other[k])
      return [
        words.slice(0, i).join(""),
        el("mark", { title: "departs from the oracle's here" }, words[i]),
        words.slice(i + 1).join(""),
      ];
    k++;
  }
  return text;
}

function facts(node) {
  const parts = Object.entries(node.reward_parts || {}).map(([name, value]) =>
    el("span.pair", {}, name, " ", el("b", {}, num(value))),
  );
  const rest = [
    ["status", node.status],
    ["policy", node.policy ? `${node.policy}@${node.version}` : null],
    ["tokens", known(node.tokens) ? whole(node.tokens) : null],
    ["log-prob", known(node.logprob) ? num(node.logprob) : null],
  ];
  return el(
    "div.factline",
    {},
    known(node.reward) ? el("span.pair.sum", {}, "reward ", el("b", {}, num(node.reward))) : el("span.pair", {}, "not rewarded"),
    parts,
    rest
      .filter(([, v]) => v !== null && v !== undefined && v !== "")
      .map(([k, v]) => el("span.pair.dim", {}, k, " ", el("b", {}, v))),
  );
}
