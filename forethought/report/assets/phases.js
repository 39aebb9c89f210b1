// The phases of a stage that grows its own tasks: a row for each generation of its tasks.

function phaseTable(rows) {
  const shows = [
    ["in_band", "between the critic's bounds", "Share of the candidates for which the critic expected neither too little nor too much."],
    ["auc", "critic AUC", "Chance that the critic expects more of a success than of a failure, before it learns from them."],
    ["replayed", "replayed a task", "Earlier successes that were learned again, for each task."],
    ["outcome_accuracy", "judge right", "Share of right verdicts of the judge of outcomes."],
    ["outcome_false_positive", "judge fooled", "Of the failures, the share that it calls a success."],
    ["outcome_said", "success, as it says", "Share of successes by its verdict."],
    ["outcome_exact", "success, as it is", "The same by the exact reward."],
  ].filter(([name]) => rows.some((row) => known(row[name])));
  const number = (name, value) => (!known(value) ? "" : name === "auc" || name === "replayed" ? value.toFixed(2) : pct(value));
  const body = rows.map((row) =>
    el(
      "tbody",
      {},
      row.generations.map((one, i) =>
        el(
          "tr",
          {},
          i
            ? el("td", {})
            : el("th", { scope: "row" }, badge(row.stage), ` phase ${row.phase + 1}`, el("div.dim", {}, `${whole(row.steps)} steps`)),
          el("td", {}, one.generation ? `made over ${whole(one.generation)}×` : "drawn"),
          el("td", {}, whole(one.tasks)),
          el("td", {}, pct(one.success)),
          shows.map(([name]) => el("td", {}, i ? "" : number(name, row[name]))),
        ),
      ),
    ),
  );
  const head = ["", "tasks", "how many", "success"].map((text) => el("th", { scope: "col" }, text));
  const more = shows.map(([, text, title]) => el("th", { scope: "col", title }, text));
  return scroll(el("table.phases", {}, el("thead", {}, el("tr", {}, head, more)), body));
}
