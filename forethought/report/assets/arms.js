// Every arm side by side: what was claimed and what came of it, a table, curves over the last stage, and every run as a dot.

(() => {
  const boards = [];
  let ribbons = true;
  const redraw = () => boards.forEach((board) => board.redraw());
  // Many arms need more colours than a palette has: hues by the golden angle, so that neighbours differ, in three lightnesses.
  const many = (i) => {
    const [hue, k] = [((i * 137.5) % 360).toFixed(0), i % 3];
    return `light-dark(oklch(${[0.42, 0.54, 0.64][k]} 0.15 ${hue}), oklch(${[0.86, 0.76, 0.66][k]} 0.13 ${hue}))`;
  };
  const VERDICTS = { holds: ["good", "✓"], "does not hold": ["bad", "✗"], undecided: ["warn", "?"] };
  const isShare = (metric) => metric.startsWith("eval/");
  const nameOf = (metric) => metric.replace(/^eval\//, "");
  const show = (metric, v) => (isShare(metric) ? pct(v) : num(v));
  const change = (metric, v) => (isShare(metric) ? signed(v) : minus((v > 0 ? "+" : "") + num(v)));
  const folder = (run) => run.path.split("/").map(encodeURIComponent).join("/");
  const linkOf = (run) => (run.report ? folder(run) + "/report.html" : null);

  const around = (found, text) => (known(found.low) ? el("span.dim", {}, ` [${text(found.low)}, ${text(found.high)}]`) : null);
  const bare = (metric) => (v) => show(metric, v).replace(NB + "%", "");

  // A difference in words and colour: coloured where its interval excludes zero.
  function moved(label, metric, found) {
    if (!found || !known(found.mean)) return null;
    const clear = known(found.low) && (found.low > 0 || found.high < 0);
    const tone = clear ? (found.mean > 0 ? "good" : "bad") : "unclear";
    const text = (v) => change(metric, v);
    return el("small", {}, el("span.dim", {}, `${label} `), el("span.change." + tone, {}, text(found.mean)), around(found, text));
  }

  function costCell(costs) {
    const line = (text, what) => el("div", {}, text, el("small.dim", { style: { display: "inline" } }, " " + what));
    const lines = [
      line(compact(costs.tokens_sampled.mean), "sampled"),
      line(compact(costs.tokens_trained.mean), "trained"),
      line(duration(costs.seconds.mean), "of " + duration(costs.run_seconds.mean)),
    ];
    return el("td", { style: { "white-space": "nowrap" } }, lines);
  }

  function cell(metric, found, baseline) {
    if (!known(found.end.mean)) return el("td", {}, "—");
    return el(
      "td",
      { style: { "white-space": "nowrap" } },
      known(found.start.mean) ? el("span.dim", {}, show(metric, found.start.mean), " → ") : null,
      el("b", {}, show(metric, found.end.mean)),
      el("small", {}, around(found.end, bare(metric))),
      moved("change", metric, found.change),
      moved("from " + baseline, metric, found.difference),
    );
  }

  function runLinks(arm) {
    const tones = { done: "plain", stopped: "warn" };
    return arm.runs.map((run) => {
      const mark = pill(String(run.seed), tones[run.status] || "bad", run.rolled_back ? GLYPHS.roll_back : null);
      const title = run.reason || `${run.status}${run.rolled_back ? ", its last stage rolled back" : ""}`;
      return [el("a", { href: linkOf(run), title: `seed ${run.seed}: ${title}` }, mark), " "];
    });
  }

  function table(group, arms) {
    const heads = ["arm", ...group.metrics.map(nameOf), "tokens and time", "seeds"];
    const rows = arms.map((arm) =>
      el(
        "tr",
        {},
        el(
          "th",
          { scope: "row", style: { "min-width": "13rem" } },
          el("span.run", { style: { "--c": arm.colour } }, el("i"), arm.name),
          arm.name === group.baseline ? el("span.tag", {}, "baseline") : null,
          el("div.fine", { style: { "font-weight": "400", "margin-top": "0" } }, arm.about),
        ),
        group.metrics.map((metric) => cell(metric, arm.metrics[metric], group.baseline)),
        costCell(arm.costs),
        el("td", { style: { "min-width": "6rem" } }, runLinks(arm), arm.failed ? el("div.change.bad", {}, `${arm.failed} failed`) : null),
      ),
    );
    const head = el("thead", {}, el("tr", {}, heads.map((text) => el("th", {}, text))));
    return scroll(el("table.ends", {}, head, el("tbody", {}, rows)));
  }

  function lineOf(arm, metric) {
    const { step, mean, low, high } = arm.curves[metric];
    if (!step.length) return null;
    const band = low.some(known);
    const or = (column) => column.map((v, i) => (known(v) ? v : mean[i]));
    const same = step.map(() => 0); // one stage, nothing thrown away: a rolled back run is drawn as it went
    const ends = band && ribbons ? { lo: or(low), hi: or(high) } : { lo: null, hi: null };
    return { id: arm.name, label: arm.name, colour: arm.colour, x: step, y: mean, raw: null, ...ends, lost: same, stage: same };
  }

  function chart(board, arms, metric) {
    return new Plot(board, () => {
      const lines = arms.map((arm) => lineOf(arm, metric)).filter(Boolean);
      if (!lines.length) return null;
      const high = Math.max(1, ...lines.flatMap((line) => line.x));
      const format = isShare(metric) ? shares() : { format: num };
      const note = "mean over seeds, ribbon: 95" + NB + "% interval";
      const plain = { bands: [], lost: [], marks: [], axis: "step", domain: [0, high], height: 270 };
      return { title: nameOf(metric), note, lines, ...plain, ...format };
    }).figure;
  }

  // Planning against acting needs both sides at the same level.
  function sidesOf(group) {
    const parts = group.metrics.map((m) => m.match(/^eval\/(?!e2e)([^@]+)(.*)$/)); // [, role, level]
    const pair = (a) => a && parts.find((b) => b && b[1] !== a[1] && b[2] === a[2]);
    const first = parts.find(pair);
    return first ? [first[0], pair(first)[0]] : null;
  }

  function dots(board, group, arms) {
    const sides = sidesOf(group);
    if (!sides) return null;
    const [x, y] = sides;
    const of = (arm) => ({
      id: arm.name,
      label: arm.name,
      colour: arm.colour,
      dots: arm.runs
        .filter((run) => run.end && known(run.end[x]) && known(run.end[y]))
        .map((run) => ({ x: run.end[x], y: run.end[y], label: `seed ${run.seed}`, href: linkOf(run) })),
      mean: known(arm.metrics[x].end.mean) ? { x: arm.metrics[x].end.mean, y: arm.metrics[y].end.mean } : null,
    });
    const title = `${nameOf(y)} against ${nameOf(x)} at the end`;
    const note = "every run a dot, a cross at the mean of the arm's seeds; up and right is better";
    return new Dots(board, () => ({ title, note, x: nameOf(x), y: nameOf(y), arms: arms.map(of).filter((arm) => arm.dots.length) })).figure;
  }

  function claimItem(claim) {
    const [tone, glyph] = VERDICTS[claim.verdict];
    const text = nbsp(claim.sentence) + ".";
    return el("li", {}, el("div", {}, el("span.who", {}, claim.text), pill(claim.verdict, tone, glyph), el("p", {}, text)));
  }

  function groupSection(group) {
    const arms = group.arms.map((arm, i) => ({ ...arm, colour: group.arms.length > RUNS.length ? many(i) : RUNS[i] }));
    const board = new Board(new Set()); // an arm that is hidden in one chart is hidden in all of its group
    boards.push(board);
    const figures = [...group.metrics.map((metric) => chart(board, arms, metric)), dots(board, group, arms)];
    const names = arms.map((arm) => arm.name);
    const switches = [
      toggle("all arms", true, (on) => (on ? board.hidden.clear() : names.forEach((n) => board.hidden.add(n)), board.redraw())),
      toggle("intervals", ribbons, (on) => ((ribbons = on), redraw()), "of the mean over seeds, as ribbons"),
      toggle("fit y", view.fit, (on) => ((view.fit = on), redraw()), "let the shares fill the height"),
    ];
    const hint = "Drag to zoom, double-click to reset.";
    return section(
      "group-" + group.name,
      group.name,
      group.about,
      group.claims.length ? el("ul.story", { style: { "margin-bottom": "1.4rem" } }, group.claims.map(claimItem)) : null,
      table(group, arms),
      el("div.controls", { style: { "margin-top": "1.2rem" } }, el("div.choice", {}, switches), el("p.hint", {}, hint)),
      el("div.grid.two", {}, figures),
    );
  }

  const sections = DATA.groups.map(groupSection);
  const runs = DATA.groups.flatMap((group) => group.arms.flatMap((arm) => arm.runs));
  const finished = runs.filter((run) => run.end).length;
  document.getElementById("page").append(
    el(
      "header.top",
      {},
      el("div.title", {}, el("h1", {}, DATA.name), el("span.dim", {}, `${finished} of ${runs.length} runs finished`)),
      DATA.about ? el("p.about", {}, DATA.about) : null,
      el("div", { style: { "margin-top": "1rem" } }, notesBox(DATA.notes)),
    ),
    el(
      "nav",
      { "aria-label": "groups" },
      DATA.groups.map((group) => el("a", { href: "#group-" + group.name }, group.name)),
    ),
    ...sections,
    el(
      "p.fine",
      {},
      "Start and end are the first and the last evaluation of the last stage (after a roll back, what was restored). Intervals are 95" +
        NB +
        "% t intervals over seeds; one seed has none. Changes and differences are paired by seed, in points for shares, coloured where " +
        "the interval excludes zero. A run that ended earlier than others keeps its last value in the curves. Times are wall-clock, with " +
        "as many runs at once as there were workers; tokens and time are those of the last stage, beside the time of the whole run.",
    ),
    el("footer", {}, `Written by forethought ${DATA.forethought} from the run directories alone.`),
  );
  redraw();
})();
