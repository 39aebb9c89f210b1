// The verdict in words and the three big numbers.

const STATUS = {
  done: ["done", "good"],
  stopped: ["stopped", "bad"],
  interrupted: ["interrupted", "warn"],
  running: ["running or cut off", "warn"],
};
const badge = (index) => el("span.badge", {}, index + 1);

// --- verdict and big numbers ---

function notesBox(notes) {
  return notes.length
    ? el(
        "div.notes",
        { role: "note" },
        notes.map((note) => el("p", {}, note)),
      )
    : null;
}

function stageSentences(run, sentences) {
  return el(
    "ol.story",
    {},
    run.stages.map((stage, i) => {
      const text = sentences[i]; // "Stage 1, name (who, steps): what happened"; a name may hold a colon
      const colon = text.includes("): ") ? text.indexOf("): ") + 1 : text.lastIndexOf(": ");
      const head = text.slice(0, colon),
        rest = text.slice(colon + 2);
      const mine = run.decisions.filter((d) => d.stage === stage.index);
      const gates = mine.filter((d) => d.kind === "gate").map((d) => d.outcome);
      const worst = ["roll_back", "stop", "warn", "vacuous", "pass"].find((o) => gates.includes(o));
      const turns = ["isolate", "retry"].filter((o) => mine.some((d) => d.kind === "schedule" && d.outcome === o));
      if (text.includes(" trained nothing in ")) turns.push("trained nothing");
      return el(
        "li",
        {},
        badge(stage.index),
        el(
          "div",
          {},
          el("span.who", {}, head.replace(/^Stage \d+, /, "")),
          el("span.outcomes", {}, (worst ? [worst, ...turns] : turns).map(outcomePill)),
          rest.split(/(?<=\.) (?=At step \d)/).map((line) => el("p", {}, sentence(line))),
        ),
      );
    }),
  );
}

// A strip from 0 to 100 %: interval and dot at the start (hollow) and at the end (full).
function strip(before, after) {
  const at = (v) => 4 + v * 292;
  const part = (p, y, full) =>
    p && [
      known(p.low) ? svg("line", { x1: at(p.low), x2: at(p.high), y1: y, y2: y, class: "ci" }) : null,
      svg("circle", { cx: at(p.value), cy: y, r: 4, class: full ? "full" : "hollow" }),
    ];
  return svg(
    "svg",
    { viewBox: "0 0 300 30", class: "strip", "aria-hidden": "true" },
    svg("line", { x1: 4, x2: 296, y1: 15, y2: 15, class: "track" }),
    before && after ? svg("line", { x1: at(before.value), x2: at(after.value), y1: 15, y2: 15, class: "travel" }) : null,
    [0, 0.25, 0.5, 0.75, 1].map((v) => svg("line", { x1: at(v), x2: at(v), y1: 12, y2: 18, class: "track" })),
    part(before, 15, false),
    part(after, 15, true),
  );
}

const interval = (p) => (p && known(p.low) ? `${pct(p.low).replace(NB + "%", "")}–${pct(p.high)}` : "");

function bigNumbers(big) {
  return el(
    "div.bigs",
    {},
    SIDES.map((side) => {
      const { before, after, change } = big[side],
        last = after || before;
      return el(
        "div.big",
        { style: { "--c": ROLE_COLOURS[side] } },
        el("h2", {}, side),
        el("p.means", {}, SIDE_MEANS[side]),
        last
          ? [
              el(
                "p.figures",
                {},
                after ? [el("span.from", {}, pct(before.value)), el("span.arrow", { "aria-label": "to" }, "→")] : null,
                el("span.to", {}, pct(last.value)),
              ),
              strip(after ? before : null, last),
              el(
                "p.small",
                {},
                change ? changeText(change, " points") : "one evaluation",
                last.n ? el("span.dim", {}, `${whole(last.n)} tasks`) : null,
              ),
              interval(last)
                ? el(
                    "p.small.dim",
                    {},
                    "95" + NB + "% interval ",
                    after && interval(before) ? `${interval(before)} → ` : "",
                    interval(last),
                  )
                : null,
            ]
          : el("p.figures", {}, el("span.from", {}, "not measured")),
      );
    }),
  );
}

function changeText(change, unit = "") {
  const tone = change.clear ? (change.value > 0 ? "good" : "bad") : "unclear";
  return el(
    "span.change." + tone,
    {},
    signed(change.value),
    unit,
    known(change.low) ? el("small", {}, ` [${signed(change.low)}, ${signed(change.high)}]`, change.paired ? " ≍" : "") : null,
  );
}
