// The trees of a run: filter them by what happened in them, go from one to the next, and link to what is on the screen.

function treeBrowser({ items, left_out, counts, signs, disagreements, measures }, stages) {
  if (!items.length)
    return el(
      "p.dim",
      {},
      left_out ? "The saved trees are too large for this page; forethought traces DIR shows them." : "No trees were saved.",
    );
  const names = signs.map(([name]) => name);
  const labels = Object.fromEntries(signs);
  const state = { ...(fromFragment(location.hash, names, measures) || NO_FILTER) };
  const list = el("div.tasks"),
    pane = el("div.pane"),
    foot = el("div.fine");
  const change = (part) => {
    Object.assign(state, part);
    draw();
    history.replaceState(null, "", toFragment(state));
  };
  const bar = filterBar(items, { names, signs, disagreements, measures }, stages, state, change);
  const place = stepper(change, bar.clear);

  const draw = () => {
    const shown = select(items, state);
    const now = shown.find((tree) => treeKey(tree) === state.tree) || shown[0] || null;
    bar.refresh();
    place.refresh(shown, now);
    fillList(list, shown, now, change);
    pane.replaceChildren(now ? treeView(now, wantedNode(state), labels) : el("p.dim", {}, "No tree on this page is like this."));
    foot.replaceChildren(...footer(items, left_out, counts, signs, state));
  };
  addEventListener("hashchange", () => {
    const asked = fromFragment(location.hash, names, measures);
    if (asked) {
      Object.assign(state, asked);
      draw();
    }
  });
  draw();
  if (location.hash.startsWith("#trees?"))
    requestAnimationFrame(() => document.getElementById("trees").scrollIntoView({ behavior: "instant" }));
  return [bar.node, place.node, el("div.browser", {}, list, pane), foot];
}

function entry(tree, pressed, change) {
  const open = () => change({ tree: treeKey(tree) });
  const dots = firstOf(tree).map((n) => el("i." + leadTone(n), { title: (VERDICTS[n.verdict] || [""])[0] }));
  const where = `step ${whole(tree.step)} · level ${tree.level}`;
  return el(
    "button",
    { type: "button", "aria-pressed": String(pressed), onclick: open },
    el("span.task", {}, tree.task),
    el("span.dim", {}, where),
    tree.disagreements
      ? el("span.pill.warn", { title: "disagreements between verdicts and outcomes" }, `≠ ${tree.disagreements}`)
      : null,
    el("span.dots", {}, dots),
  );
}

// Every tree that passes; the open one in sight, and with the focus where the list had it.
function fillList(list, shown, now, change) {
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...shown.map((tree) => entry(tree, tree === now, change)));
  const open = list.querySelector('[aria-pressed="true"]');
  if (!open) return;
  const [at, box] = [open.getBoundingClientRect(), list.getBoundingClientRect()];
  list.scrollTop += at.top - box.top - list.clientHeight / 3;
  list.scrollLeft += at.left - box.left - list.clientWidth / 3;
  if (focused) open.focus({ preventScroll: true });
}

// "3 of 57", with the way to the one before and the one after.
function stepper(change, clear) {
  const said = el("span.count", { role: "status" });
  const buttons = [
    ["previous tree", "‹", -1],
    ["next tree", "›", 1],
  ].map(([label, glyph, by]) => ({ by, node: el("button.step", { type: "button", "aria-label": label }, glyph) }));
  const refresh = (shown, now) => {
    const at = shown.indexOf(now);
    said.textContent = shown.length ? `${whole(at + 1)} of ${whole(shown.length)} trees` : "no trees";
    for (const { by, node } of buttons) {
      node.disabled = !shown[at + by];
      node.onclick = () => change({ tree: treeKey(shown[at + by]) });
    }
  };
  return { node: el("div.place", {}, buttons[0].node, said, buttons[1].node, clear), refresh };
}

function footer(items, left_out, counts, signs, state) {
  const command = el("p", {}, "In a terminal: ", el("code", {}, toCommand(state)));
  if (!left_out) return [command];
  const all = items.length + left_out;
  const told = signs
    .filter(([name]) => counts[name] && name !== "disagree")
    .map(([name, label]) => `${label} ${whole(counts[name])}`);
  const rest = `This page holds ${whole(items.length)} of the ${whole(all)} saved trees, chosen over the whole run and over what happened in them. `;
  return [
    el("p", {}, rest, told.length ? `Of all of them: ${told.join(", ")}.` : "", " The command below reads them all."),
    command,
  ];
}
