// Episodes: a picture of each page as it was before anything was done, with the planner's words and the grounder's choice drawn on it.

const FILMS_LEAD =
  "Each page before the attempt on it. Dashed: the element that the planner's words mean. Solid: the one that the grounder chose.";
const WENT_WRONG = { words: "wrong plan", element: "wrong element", page: "page refused" };
const OUT = 3; // pixels that the box of the plan lies outside of the element's
const EDGE = 22; // pixels beside a picture, where the numbers of steps stand: on it they would cover what is read
const ROW = 10; // pixels from one number to the next below it
const SIZE = 1.5; // of a picture

function filmBrowser({ items, images }) {
  const steps = [...new Set(items.map((film) => film.step))];
  const list = el("div.films");
  const draw = (step) => list.replaceChildren(...items.filter((film) => film.step === step).map((film) => filmView(film, images)));
  draw(steps[0]);
  const bar = steps.length > 1 ? choice("evaluation at step", steps.map((step) => [step, whole(step)]), steps[0], draw) : "";
  return [bar ? el("div.controls", {}, bar) : "", list];
}

function filmView(film, images) {
  const verdict = film.success ? pill("success", "good", "✓") : pill(WENT_WRONG[film.wrong] || "failed", "bad", "✗");
  return el(
    "article.film",
    { style: { "--n": film.frames.length, "--shown": `${Math.max(...film.frames.map(shownWidth))}px` } },
    el("header", {}, el("h3", {}, film.name), verdict),
    el("p.asked", {}, film.asked),
    film.reason ? el("p.why", {}, film.reason) : null,
    el("div.frames", {}, film.frames.map((frame, i) => frameView(frame, i, film.frames.length, images))),
  );
}

const shownWidth = (frame) => (frame.width + 2 * EDGE) * SIZE;

function frameView(frame, i, n, images) {
  const { width, height } = frame;
  const shown = svg(
    "svg",
    { class: "screen", viewBox: `${-EDGE} 0 ${width + 2 * EDGE} ${height}`, role: "img", "aria-label": `page ${i + 1}` },
    svg("image", { href: images[frame.image] || "", width, height }),
    marks(frame.planned, "planned", OUT, width),
    marks(frame.chosen, "chosen", 0, width),
  );
  return el(
    "figure.frame",
    { style: { "--shown": `${shownWidth(frame)}px` } },
    el("figcaption", {}, n > 1 ? el("b", {}, `page ${i + 1}`) : null, frame.wrong ? pill(WENT_WRONG[frame.wrong], "bad", "✗") : null),
    shown,
    said(frame.planned, "planned"),
    said(frame.chosen, "chosen"),
    frame.reason ? el("p.why", {}, frame.reason) : null,
  );
}

// The boxes of one role's steps. Steps on one element share a box, and their numbers stand side by side: those of
// the plan left of the picture, those of the choice right of it, each with a line to its box.
function marks(steps, which, out, width) {
  const boxes = new Map();
  steps.forEach((step, i) => {
    if (!step.box) return;
    const key = step.box.join();
    const one = boxes.get(key) || { box: step.box, numbers: [], good: true };
    one.numbers.push(i + 1);
    one.good = one.good && step.good;
    boxes.set(key, one);
  });
  let below = 0;
  const left = which === "planned";
  return [...boxes.values()].sort((a, b) => a.box[1] - b.box[1]).map(({ box: [x, y, w, h], numbers, good }) => {
    const label = numbers.join(" "), full = 5 + 5.2 * label.length, wide = Math.min(EDGE - 2, full);
    const middle = y + h / 2, top = Math.max(0, below, middle - 4.5);
    below = top + ROW;
    const at = { x: left ? -wide - 1 : width + 1, y: top, width: wide, height: 9, rx: 2 };
    const [from, to] = left ? [-1, x - out] : [width + 1, x + w + out];
    return svg(
      "g",
      { class: `step ${which}${good ? "" : " bad"}` },
      svg("rect", { class: "box", x: x - out, y: y - out, width: w + 2 * out, height: h + 2 * out, rx: 2 }),
      svg("path", { class: "to", d: `M${from} ${top + 4.5}L${to} ${middle}` }),
      svg("rect", { class: "tab", ...at }),
      svg("text", { x: at.x + wide / 2, y: at.y + 7, "text-anchor": "middle", ...(full > wide && { textLength: wide - 4, lengthAdjust: "spacingAndGlyphs" }) }, label),
    );
  });
}

function said(steps, which) {
  const rows = steps.map((step) =>
    el(step.good ? "li" : "li.bad", {}, el("code", {}, step.said), step.note ? el("span.why", {}, " " + step.note) : null),
  );
  return el("div.said", { style: { "--c": which === "planned" ? "var(--plan)" : "var(--act)" } }, el("b.side", {}, which), rows.length ? el("ol", {}, rows) : el("p.why", {}, "nothing that can be read"));
}
