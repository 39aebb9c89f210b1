"use strict";
// Elements and numbers as text. Words of a run enter the page in `el`, as text nodes, and nowhere else.

const DATA = JSON.parse(document.getElementById("data").textContent);
const NS = document.getElementById("mark").namespaceURI; // of SVG, without writing an address into the page
const SIDES = DATA.sides || []; // what was measured: roles in the order of the workflow, and all together
const ROLES = DATA.roles || SIDES.slice(0, -1); // those of the workflow, the last of which acts
const ACTS = ROLES.length - 1;
const BETWEEN = ["var(--refused)", "var(--warn)", "var(--good)"]; // the colours of roles between the first and the last
const FREE = ((DATA.trees || {}).items || []).some((tree) => tree.free_text); // plans in free words: nothing executes them
const judged = FREE ? "accepted by the interface; nothing executes it" : "as its verifier judges it";
const sideMeans = (i) => (i ? `${ROLES[i]} alone, under the oracle's ${ROLES.slice(0, i).join(" and ")}` : `${ROLES[i]} alone, ${judged}`);
const roleColour = (i) => (i === ACTS ? "var(--act)" : i ? BETWEEN[(i - 1) % BETWEEN.length] : "var(--plan)");
const bySide = (of, all) => Object.fromEntries([...ROLES.map((role, i) => [role, of(i)]), ["e2e", all]]);
const SIDE_MEANS = bySide(sideMeans, "all roles together, end to end");
const ROLE_COLOURS = bySide(roleColour, "var(--e2e)");
const TONES = {
  pass: "good",
  share: "good",
  stop: "bad",
  roll_back: "bad",
  warn: "warn",
  vacuous: "warn",
  "trained nothing": "warn",
  refuse: "warn",
  interrupt: "warn",
  isolate: "warn",
  retry: "warn",
};
const GLYPHS = {
  pass: "✓",
  stop: "■",
  roll_back: "↩",
  warn: "!",
  vacuous: "∅",
  "trained nothing": "∅",
  refuse: "!",
  interrupt: "‖",
  resume: "▸",
  start: "▸",
  end: "●",
  advance: "→",
  isolate: "≠",
  share: "=",
  retry: "↻",
  fork: "⇉",
  core: "◆",
  random: "◇",
  fuse: "∪",
};

// el("p.small", { title: "x", onclick: f, style: { "--c": "red" } }, "text", child, [children])
function el(spec, attrs = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  return fill(node, attrs, children);
}

function svg(tag, attrs = {}, ...children) {
  return fill(document.createElementNS(NS, tag), attrs, children);
}

function fill(node, attrs, children) {
  for (const [name, value] of Object.entries(attrs)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((c) => c !== null && c !== undefined && c !== false)
      .map((c) => (c instanceof Node ? c : String(c))),
  );
  return node;
}

const NB = "\u00a0";
const known = (v) => typeof v === "number" && Number.isFinite(v);
const minus = (text) => text.replace(/-(?=\d)/g, "−");
const pct = (v, digits = 1) => (known(v) ? minus((v * 100).toFixed(digits)) + NB + "%" : "—");
const signed = (v) => minus((v > 0 ? "+" : "") + ((Math.round(v * 1000) || 0) / 10).toFixed(1)); // || 0: no minus before a zero
const nbsp = (text) => text.replace(/(\d) (%|points)/g, "$1" + NB + "$2").replace(/([\s[])-(?=\d)/g, "$1−");
const whole = (v) => Math.round(v).toLocaleString("en-US");

function num(v) {
  if (!known(v)) return "—";
  if (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e6)) return minus(v.toExponential(2).replace(/\.?0*e\+?/, "e"));
  return minus(Math.abs(v) >= 1e4 ? whole(v) : String(Number(v.toPrecision(4))));
}

function compact(v) {
  if (!known(v)) return "—";
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(v) >= size) return Number((v / size).toPrecision(3)) + NB + unit;
  }
  return String(Math.round(v));
}

function duration(seconds) {
  if (!known(seconds)) return "—";
  const s = Math.round(seconds);
  if (s < 60) return (s < 10 ? Number(seconds.toFixed(1)) : s) + NB + "s";
  if (s < 3600) return Math.floor(s / 60) + NB + "min" + (s % 60 ? " " + (s % 60) + NB + "s" : "");
  const m = Math.round(s / 60);
  return Math.floor(m / 60) + NB + "h" + (m % 60 ? " " + (m % 60) + NB + "min" : "");
}

const AXES = {
  step: { name: "step", label: "Steps", format: (v) => whole(v), whole: true },
  seconds: { name: "training time", label: "Time", format: duration, sexagesimal: true },
  tokens: { name: "sampled tokens", label: "Sampled tokens", format: compact, whole: true },
};

function pill(text, tone, glyph) {
  return el("span.pill." + (tone || "plain"), {}, glyph ? el("span.glyph", { "aria-hidden": "true" }, glyph) : null, text);
}

const outcomePill = (outcome) => pill(outcome.replace("_", " "), TONES[outcome], GLYPHS[outcome]);

// A row of buttons of which one is on. `options` are [value, label, count?].
function choice(label, options, current, onpick) {
  const buttons = options.map(([value, text, count]) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": String(value === current),
        "data-value": value,
        onclick: () => {
          for (const b of buttons)
            b.setAttribute("aria-pressed", String(b === buttons[options.findIndex((o) => o[0] === value)]));
          onpick(value);
        },
      },
      text,
      count === undefined ? null : el("span.count", {}, count),
    ),
  );
  return el("div.choice", { role: "group", "aria-label": label }, el("span.label", {}, label), el("span.buttons", {}, buttons));
}

function toggle(label, on, onflip, title) {
  const button = el(
    "button.toggle",
    {
      type: "button",
      "aria-pressed": String(on),
      title,
      onclick: () => {
        const now = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(now));
        onflip(now);
      },
    },
    label,
  );
  return button;
}

function section(id, title, lead, ...children) {
  return el("section", { id }, el("header.head", {}, el("h2", {}, title), lead ? el("p.lead", {}, lead) : null), children);
}

const scroll = (table) => el("div.scroll", { tabindex: "0" }, table);

const listed = (words) => [words.slice(0, -1).join(", "), ...words.slice(-1)].filter(Boolean).join(" and ");

// Roles and e2e stand out in a sentence, each in its colour; a stage that has the name of a role does not.
const SAID = new RegExp(`(?<=^|[\\s,;:])(${[...ROLES, "e2e"].join("|")})(?=:| (?:rose|fell|stayed|showed|was|at) )`);
function sentence(text) {
  const parts = nbsp(text).split(SAID);
  return parts.map((part, i) => (i % 2 ? el("b.side", { style: { "--c": ROLE_COLOURS[part] } }, part) : part));
}
