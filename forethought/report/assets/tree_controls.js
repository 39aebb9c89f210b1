// The controls of the trees: each says how many trees it would leave, given what the others ask for.

function filterBar(items, { names, signs, disagreements, measures }, stages, state, change) {
  const without = (part) => items.filter((tree) => passes(tree, { ...state, ...part }));
  const values = (key) => [...new Set(items.map((tree) => tree[key]))].sort((a, b) => a - b);
  const pick = (key, named) => {
    const all = values(key);
    if (all.length < 2) return null;
    const options = () => {
      const left = tally(without({ [key]: null }), (tree) => [tree[key]]);
      return all.map((v) => [v, named(v), left.get(v) || 0]);
    };
    return picker(
      key,
      options,
      () => state[key],
      (text) => change({ [key]: text === "" ? null : Number(text) }),
    );
  };
  const reasons = [...new Set(items.flatMap((tree) => tree.reasons))];
  const parts = [
    pick("step", whole),
    pick("stage", (i) => `${i + 1} ${stages[i] ? stages[i].name : ""}`),
    kinds(items, state, change, without),
    pick("level", String),
    outcomes(state, change, () => tally(without({ solved: null }), (tree) => [tree.solved])),
    searchBox(
      "task",
      "id or words of the task",
      () => state.task,
      (text) => change({ task: text }),
    ),
    reasons.length
      ? picker(
          "reason",
          () =>
            topReasons(
              reasons,
              state.reason,
              tally(without({ reason: "" }), (tree) => tree.reasons),
            ),
          () => state.reason || null,
          (text) => change({ reason: text }),
        )
      : null,
    qualityRange(measures, state, change),
    picker(
      "order",
      () => Object.entries(ORDERS).map(([name, [label]]) => [name, label]),
      () => state.order,
      (name) => change({ order: name }),
      false,
    ),
  ].filter(Boolean);
  const chips = signs
    .filter(([name]) => items.some((tree) => tree.signs.includes(name)))
    .map(([name, label, about]) => signChip(name, label, about, disagreements.includes(name), state, change, without));
  const clear = el(
    "button.toggle",
    { type: "button", onclick: () => change({ ...NO_FILTER, order: state.order }) },
    "clear all filters",
  );
  return {
    node: el(
      "div.filters",
      {},
      el(
        "div.controls",
        {},
        parts.map((part) => part.node),
      ),
      el(
        "div.chips",
        {},
        chips.map((chip) => chip.node),
      ),
    ),
    clear,
    refresh: () => {
      for (const part of [...parts, ...chips]) part.refresh();
      clear.hidden = toFragment({ ...state, order: NO_FILTER.order, tree: null }) === "#trees";
    },
  };
}

// Of tasks of several kinds, whose ids begin with the kind: a level alone would mix them. It fills in the search.
function kinds(items, state, change, without) {
  const kind = (tree) => (tree.task.includes("/") ? tree.task.split("/")[0] : "");
  const all = [...new Set(items.map(kind))].sort();
  if (all.length < 2 || all.includes("")) return null;
  const options = () => {
    const left = tally(without({ task: "" }), (tree) => [kind(tree)]);
    return all.map((name) => [`${name}/`, name, left.get(name) || 0]);
  };
  return picker("kind", options, () => state.task, (text) => change({ task: text }));
}

// Value -> how many of the trees have it.
function tally(trees, valuesOf) {
  const found = new Map();
  for (const value of trees.flatMap(valuesOf)) found.set(value, (found.get(value) || 0) + 1);
  return found;
}

// A menu. `options()` gives [value, label, count?]; the value null stands for "all".
function picker(label, options, current, onpick, any = true) {
  const box = el("select", { "aria-label": label, onchange: () => onpick(box.value) });
  const refresh = () => {
    const now = String(current() ?? "");
    const rows = options().map(([value, text, count]) => {
      const said = count === undefined ? text : `${text} (${whole(count)})`;
      return el("option", { value, selected: String(value) === now }, said);
    });
    box.replaceChildren(...(any ? [el("option", { value: "", selected: now === "" }, "all")] : []), ...rows);
  };
  return { node: el("label.choice", {}, el("span.label", {}, label), box), refresh };
}

// The reasons that most trees have; one that the address asks for stands among them.
function topReasons(reasons, asked, left) {
  const rows = reasons.map((reason) => [reason, reason.length > 60 ? reason.slice(0, 59) + "…" : reason, left.get(reason) || 0]);
  const top = rows.sort((a, b) => b[2] - a[2]).filter(([reason, , n], i) => (n && i < 24) || reason === asked);
  return asked && !reasons.includes(asked) ? [[asked, asked], ...top] : top;
}

function searchBox(label, hint, current, onsearch) {
  const box = el("input", { type: "search", placeholder: hint, "aria-label": label, oninput: () => onsearch(box.value) });
  const refresh = () => {
    if (box.value !== current()) box.value = current();
  };
  return { node: el("label.choice", {}, el("span.label", {}, label), box), refresh };
}

// All, solved or failed.
function outcomes(state, change, tallied) {
  const options = [
    [null, "all"],
    [true, "solved"],
    [false, "failed"],
  ];
  const buttons = options.map(([value, text]) => {
    const n = value === null ? null : el("span.count");
    const button = el("button", { type: "button", onclick: () => change({ solved: value }) }, text, n);
    return { value, button, n };
  });
  const refresh = () => {
    const left = tallied();
    for (const { value, button, n } of buttons) {
      button.setAttribute("aria-pressed", String(state.solved === value));
      if (n) n.textContent = whole(left.get(value) || 0);
    }
  };
  const row = el(
    "span.buttons",
    {},
    buttons.map(({ button }) => button),
  );
  return { node: el("div.choice", { role: "group", "aria-label": "outcome" }, el("span.label", {}, "outcome"), row), refresh };
}

// A range of what leading turns are worth, by one measure. Both ends count.
function qualityRange(measures, state, change) {
  const ends = ["low", "high"].map((key) => {
    const label = key === "low" ? "at least" : "at most";
    const set = () => change({ [key]: box.value === "" || !box.validity.valid ? null : Number(box.value) });
    const box = el("input", {
      type: "number",
      min: 0,
      max: 1,
      step: "any",
      placeholder: key === "low" ? "0" : "1",
      "aria-label": label,
      onchange: set,
    });
    return { key, box };
  });
  const of = el(
    "select",
    { "aria-label": "measure", onchange: () => change({ measure: of.value }) },
    measures.map((name) => el("option", { value: name }, name)),
  );
  const refresh = () => {
    of.value = state.measure;
    for (const { key, box } of ends) box.value = state[key] ?? "";
  };
  const title =
    "trees with a turn of this quality: the share of its executions that succeed, what the executor says, or its analytic share";
  return {
    node: el("div.choice.range", { title }, el("span.label", {}, "quality"), of, ends[0].box, "–", ends[1].box),
    refresh,
  };
}

function signChip(name, label, about, indented, state, change, without) {
  const n = el("span.count");
  const flip = () =>
    change({ signs: state.signs.includes(name) ? state.signs.filter((sign) => sign !== name) : [...state.signs, name] });
  const button = el("button.toggle" + (indented ? ".kind" : ""), { type: "button", title: about, onclick: flip }, label, n);
  const refresh = () => {
    const others = state.signs.filter((sign) => sign !== name);
    const count = without({ signs: others }).filter((tree) => tree.signs.includes(name)).length;
    n.textContent = whole(count);
    button.setAttribute("aria-pressed", String(state.signs.includes(name)));
    button.disabled = !count && !state.signs.includes(name);
  };
  return { node: button, refresh };
}
