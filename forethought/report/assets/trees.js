// The sample trees: pick a step and a task, see every plan and under it every action, the oracle's plan beside.

const VERDICTS = {
  right: ["right", "good"],
  wrong: ["wrong", "bad"],
  act_failed: ["right, act failed", "warn"],
  refused: ["refused", "refused"],
  failed: ["broke", "plain"],
  unjudged: ["not judged", "plain"],
};
const FILTERS = [
  ["all", "all"],
  ["plan_wrong", "plan wrong"],
  ["act_failed", "plan right, act failed"],
  ["refused", "refused"],
];

function treeBrowser({ items, left_out }) {
  if (!items.length) return el("p.dim", {}, "No sample trees were saved.");
  const steps = [...new Set(items.map((tree) => tree.step))];
  const now = { step: steps[steps.length - 1], filter: "all", tree: null };
  const bar = el("div.controls"),
    list = el("div.tasks"),
    pane = el("div.pane");
  const passing = (filter, tree) => filter === "all" || tree.tags.includes(filter);

  const draw = () => {
    const here = items.filter((tree) => tree.step === now.step),
      shown = here.filter((tree) => passing(now.filter, tree));
    if (!shown.includes(now.tree)) now.tree = shown[0] || null;
    const pick = el(
      "select",
      { "aria-label": "step", onchange: () => go(Number(pick.value)) },
      steps.map((step) => el("option", { value: step, selected: step === now.step }, whole(step))),
    );
    const at = steps.indexOf(now.step);
    const go = (step) => {
      now.step = step;
      now.tree = null;
      draw();
    };
    bar.replaceChildren(
      el(
        "div.choice",
        {},
        el("span.label", {}, "step"),
        el(
          "button.step",
          { type: "button", "aria-label": "earlier step", disabled: at === 0, onclick: () => go(steps[at - 1]) },
          "‹",
        ),
        pick,
        el(
          "button.step",
          { type: "button", "aria-label": "later step", disabled: at === steps.length - 1, onclick: () => go(steps[at + 1]) },
          "›",
        ),
      ),
      choice(
        "show",
        FILTERS.map(([f, label]) => [f, label, here.filter((t) => passing(f, t)).length]),
        now.filter,
        (f) => {
          now.filter = f;
          draw();
        },
      ),
    );
    list.replaceChildren(
      ...shown.map((tree) =>
        el(
          "button",
          {
            type: "button",
            "aria-pressed": String(tree === now.tree),
            onclick: () => {
              now.tree = tree;
              draw();
            },
          },
          el("span.task", {}, tree.task),
          el("span.dim", {}, `level ${tree.level}`),
          el(
            "span.dots",
            {},
            plansOf(tree).map((n) => el("i." + tone(n), { title: (VERDICTS[n.verdict] || [""])[0] })),
          ),
        ),
      ),
    );
    pane.replaceChildren(
      now.tree
        ? treeView(now.tree, now.filter)
        : el("p.dim", {}, "No tree of this step is of this kind. Take another step or show all."),
    );
  };
  draw();
  return [
    bar,
    el("div.browser", {}, list, pane),
    left_out
      ? el(
          "p.fine",
          {},
          `${whole(left_out)} more saved trees are left out to keep this page light; they lie in the run's trees directory.`,
        )
      : null,
  ];
}

const tone = (node) => (VERDICTS[node.verdict] || ["", "plain"])[1];

function plansOf(tree) {
  const first = tree.nodes.filter((n) => n.role === "plan");
  return first.length ? first : tree.nodes.filter((n) => n.role);
}

const WANTED = {
  all: () => true,
  plan_wrong: (n) => n.role === "plan" && n.verdict === "wrong",
  act_failed: (n) => n.verdict === "act_failed",
  refused: (n) => n.verdict === "refused",
};

// A node and what lies under it. `inside`: a node above it is what the filter asked for. `number`: its place among its peers.
function nodeView(tree, node, filter, inside, number) {
  const kids = tree.nodes.filter((n) => n.parent === node.id);
  const mine = inside || WANTED[filter](node);
  const below = kids.map((kid) => {
    const peers = kids.filter((n) => n.role === kid.role);
    return nodeView(tree, kid, filter, mine && node.role, peers.indexOf(kid) + 1);
  });
  if (!node.role) return [node.parent === null ? null : el("pre.observation", { title: "observation" }, node.text), below];
  const holds = (n) => WANTED[filter](n) || tree.nodes.some((kid) => kid.parent === n.id && holds(kid));
  const open = filter === "all" ? node.role === "plan" && number === 1 : !inside && holds(node);
  const summary = [
    el("span.role", {}, `${node.role} ${number}`),
    node.verdict ? pill(...VERDICTS[node.verdict]) : null,
    known(node.advantage) ? advantage(node.advantage) : null,
    el("span.preview", {}, node.text),
  ];
  const body = [
    el("pre", {}, node.role === "plan" ? besideOracle(node.text, tree.oracle_plan || "") : node.text),
    node.reason ? el("p.reason", {}, node.reason) : null,
    facts(node),
    below,
  ];
  const dimmed = mine || holds(node) ? "" : ".off";
  const colour = ROLE_COLOURS[node.role] || "var(--ink2)";
  return el("details.node" + dimmed, { open, style: { "--c": colour } }, el("summary", {}, summary), el("div.inside", {}, body));
}

function treeView(tree, filter) {
  const roots = tree.nodes.filter((n) => n.parent === null);
  return el(
    "article",
    {},
    el(
      "header",
      {},
      el("h3", {}, tree.task),
      el("span.dim", {}, [tree.domain, `level ${tree.level}`, `step ${whole(tree.step)}`].filter(Boolean).join(" · ")),
    ),
    el(
      "div.given",
      {},
      el(
        "div",
        {},
        el("h4", {}, "task"),
        el("pre", {}, tree.prompt || ""),
        tree.context ? el("details", {}, el("summary", {}, "context"), el("pre", {}, tree.context)) : null,
      ),
      el("div.oracle", {}, el("h4", {}, "oracle's plan"), el("pre", {}, tree.oracle_plan || "—")),
    ),
    el(
      "div.nodes",
      {},
      roots.map((root, i) => nodeView(tree, root, filter, false, i + 1)),
    ),
  );
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
  // the first word that departs from the oracle's plan is marked; it need not be wrong
  const words = text.split(/(\s+)/),
    other = oracle.trim().split(/\s+/);
  let k = 0;
  for (let i = 0; i < words.length; i++) {
    if (!words[i].trim()) continue;
    if (words[i] !== other[k])
      return [
        words.slice(0, i).join(""),
        el("mark", { title: "departs from the oracle's plan here" }, words[i]),
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
    ["tokens", node.tokens],
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
