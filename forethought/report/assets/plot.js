// One SVG chart: lines with ribbons over a shared x axis, stage bands, thrown-away training, decision marks, a crosshair,
// a legend that toggles. A Board is several charts that share crosshair and zoom.

class Board {
  constructor(hidden = null) {
    this.hidden = hidden; // names of lines that are hidden everywhere; null: each chart has its own
    this.plots = [];
    this.zoom = null; // [from, to] on the current x axis
  }
  redraw() {
    for (const plot of this.plots) plot.draw();
  }
  hover(x, source) {
    for (const plot of this.plots) plot.point(x, plot === source);
  }
  zoomTo(range) {
    this.zoom = range;
    this.redraw();
  }
}

let plotCount = 0;

// make() -> { title, means, note, unit, lines: [{ id, label, colour, x, y, raw, lo, hi, lost, stage, part, thin }], bands, lost,
//             marks, strip, fixed, least, log, format, axis, domain, height, rail } or null where there is nothing to draw.
class Plot {
  constructor(board, make) {
    this.board = board;
    this.make = make;
    this.hidden = board.hidden || new Set();
    this.id = "plot" + plotCount++;
    this.title = el("h3");
    this.note = el("p.note");
    this.legend = el("div.legend");
    this.stagebox = el("div.canvas");
    this.tip = el("div.tip", { hidden: true });
    const save = (kind, how) => el("button", { type: "button", title: `save this chart as ${kind}`, onclick: () => how(this) }, kind);
    const saves = el("span.save", {}, save("CSV", saveTable), save("PNG", savePicture));
    this.figure = el("figure.plot", {}, el("figcaption", {}, this.title, this.note, saves, this.legend), this.stagebox, this.tip);
    board.plots.push(this);
    this.width = 0;
    new ResizeObserver(() => {
      if (Math.abs(this.stagebox.clientWidth - this.width) > 1) this.draw();
    }).observe(this.stagebox);
  }

  draw() {
    const spec = (this.spec = this.make());
    this.figure.hidden = !spec;
    if (!spec) return;
    this.title.textContent = spec.title;
    fill(this.title, { title: spec.means || null }, []);
    this.note.textContent = spec.note || "";
    this.note.hidden = !spec.note;
    this.width = this.stagebox.clientWidth;
    if (!this.width) return;
    this.lines = spec.lines.filter((line) => !this.hidden.has(line.id));
    const top = spec.rail ? 40 : spec.strip && spec.strip.length ? 36 : 10;
    this.scale = spec.log ? (v) => Math.log10(Math.max(v, 1e-9)) : (v) => v;
    this.height = spec.height + 16; // the title of the x axis stands below the ticks
    this.box = { left: spec.unit ? 66 : 50, right: this.width - 14, top, bottom: spec.height - 24 };
    this.xs = this.board.zoom || spec.domain;
    this.stops = null;
    this.ys = spec.fixed || this.range();
    this.dashes = dashes(this.lines, this);
    this.root = svg("svg", {
      viewBox: `0 0 ${this.width} ${this.height}`,
      role: "img",
      tabindex: "0",
      "aria-label": `${spec.title}: ${spec.lines.map((l) => l.label).join(", ")}. Arrow keys move along it.`,
    });
    this.root.append(
      svg(
        "defs",
        {},
        svg("clipPath", { id: this.id }, this.rect(this.box.left, this.box.top - 4, this.box.right, this.box.bottom + 4)),
        svg(
          "pattern",
          { id: this.id + "h", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
          svg("line", { x1: 0, y1: 0, x2: 0, y2: 7, class: "hatch" }),
        ),
      ),
    );
    this.ground(spec);
    const inside = svg("g", { "clip-path": `url(#${this.id})` });
    for (const line of this.lines) this.line(inside, line);
    this.root.append(inside);
    this.cross = svg("g", { class: "cross" });
    this.root.append(this.cross);
    this.listen();
    if (spec.rail) this.marks(spec.marks);
    this.stagebox.replaceChildren(this.root);
    this.writeLegend();
  }

  X(v) {
    const [a, b] = this.xs;
    return this.box.left + ((v - a) / (b - a || 1)) * (this.box.right - this.box.left);
  }
  Y(v) {
    const [a, b] = this.ys;
    return this.box.bottom - ((this.scale(v) - a) / (b - a || 1)) * (this.box.bottom - this.box.top);
  }
  rect(x0, y0, x1, y1, attrs = {}) {
    return svg("rect", { x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0), ...attrs });
  }

  range() {
    // of what is visible, with air; zero is kept where it is near; `least` is always in it
    const visible = this.lines.some((line) => line.x.some((x) => x >= this.xs[0] && x <= this.xs[1]));
    let [low, high] = (visible && this.spec.least) || [Infinity, -Infinity];
    for (const line of this.lines)
      line.x.forEach((x, i) => {
        if (x < this.xs[0] || x > this.xs[1]) return;
        low = Math.min(low, this.scale((line.lo || line.raw || line.y)[i]));
        high = Math.max(high, this.scale((line.hi || line.raw || line.y)[i]));
      });
    if (low > high) return [0, 1];
    if (low > 0 && low < (high - low) * 0.6 && !this.spec.log) low = 0;
    const air = (high - low || Math.abs(high) || 1) * 0.06;
    const [a, b] = [low === 0 && !this.spec.log ? 0 : low - air, high + air];
    return this.spec.share ? [Math.max(a, 0), Math.min(b, 1)] : [a, b];
  }

  ground(spec) {
    const { left, right, top, bottom } = this.box;
    const cut = (v) => Math.min(Math.max(v, left), right);
    spec.bands.forEach((band, i) => {
      const x0 = cut(this.X(band.from)),
        x1 = cut(this.X(band.to));
      if (x1 - x0 < 1) return;
      if (i % 2 === 0) this.root.append(this.rect(x0, spec.rail ? 0 : top, x1, bottom, { class: "band" }));
      if (spec.rail)
        this.root.append(svg("text", { x: x0 + 7, y: 14, class: "bandname" }, fit(band.label, band.short, x1 - x0 - 12)));
      if (i) this.root.append(svg("line", { x1: x0, x2: x0, y1: spec.rail ? 0 : top, y2: bottom, class: "border" }));
    });
    for (const tick of spec.log ? decades(this.ys) : ticks(this.ys, (bottom - top) / 38)) {
      const zero = spec.least && tick === 0 ? " zero" : "";
      this.root.append(
        svg("line", { x1: left, x2: right, y1: this.Y(tick), y2: this.Y(tick), class: "gridline" + zero }),
        svg("text", { x: left - 8, y: this.Y(tick) + 4, class: "tick y" }, spec.format(tick)),
      );
    }
    this.root.append(svg("text", { x: right, y: bottom + 34, class: "axis" }, AXES[spec.axis].name));
    if (spec.unit) {
      const [x, y] = [13, (top + bottom) / 2];
      this.root.append(svg("text", { x, y, class: "axis y", transform: `rotate(-90 ${x} ${y})` }, spec.unit));
    }
    for (const tick of ticks(this.xs, (right - left) / 90, AXES[spec.axis])) {
      const text = AXES[spec.axis].format(tick);
      this.root.append(
        svg("text", { x: Math.min(this.X(tick), right - text.length * 2.4), y: bottom + 17, class: "tick x" }, text),
      );
    }
    for (const phase of spec.strip || []) {
      const x0 = cut(this.X(phase.from)),
        x1 = cut(this.X(phase.to));
      if (x1 - x0 < 1) continue;
      const text = [phase.label, phase.short].find((name) => fit(name, "", x1 - x0 - 12) === name) || "";
      this.root.append(
        this.rect(x0, 8, x1 - 1, 28, { class: "phase " + phase.tone, rx: 4 }),
        svg("text", { x: x0 + 7, y: 22, class: "phasename" }, text),
        svg("line", { x1: x0, x2: x0, y1: 28, y2: bottom, class: "border" }),
      );
    }
    for (const range of spec.lost) {
      const x0 = cut(this.X(range.from)),
        x1 = cut(this.X(range.to));
      if (x1 - x0 < 1) continue;
      this.root.append(this.rect(x0, top, x1, bottom, { fill: `url(#${this.id}h)` }));
      if (spec.rail && x1 - x0 > 74)
        this.root.append(svg("text", { x: (x0 + x1) / 2, y: bottom - 7, class: "lostname" }, "rolled back"));
    }
  }

  line(into, line) {
    const style = { style: { "--c": line.colour } };
    const sparse = (this.box.right - this.box.left) / line.x.length > 14; // evaluations: every point is to be seen
    for (const run of stretches(line)) {
      const at = (values) => run.at.map((i) => `${this.X(line.x[i]).toFixed(1)},${this.Y(values[i]).toFixed(1)}`);
      const lost = (run.lost ? " lost" : "") + (sparse ? " sparse" : "");
      if (line.lo && run.at.length > 1)
        into.append(
          svg("path", { d: "M" + at(line.hi).concat(at(line.lo).reverse()).join("L") + "Z", class: "ribbon" + lost, ...style }),
        );
      if (line.raw && run.at.length > 1)
        into.append(
          svg("path", { d: "M" + at(line.raw).join("L"), class: "raw" + (line.x.length > this.width ? " dense" : ""), ...style }),
        );
      const thin = line.thin ? " thin" : this.dashes.get(line) || "";
      if (run.at.length > 1) into.append(svg("path", { d: "M" + at(line.y).join("L"), class: "line" + thin + lost, ...style }));
      if (sparse || run.at.length === 1)
        for (const i of run.at) {
          if (line.lost[i] === run.lost)
            into.append(svg("circle", { cx: this.X(line.x[i]), cy: this.Y(line.y[i]), r: 2.4, class: "dot" + lost, ...style }));
        }
    }
  }

  marks(marks) {
    // decisions on the rail; those that would overlap become one mark that tells them all
    const groups = [];
    for (const mark of marks) {
      const x = this.X(mark.x),
        last = groups[groups.length - 1];
      if (x < this.box.left - 1 || x > this.box.right + 1) continue;
      if (last && x - last.x < 11) last.all.push(mark);
      else groups.push({ x, all: [mark] });
    }
    for (const group of groups) {
      const head = group.all.reduce((a, b) => (rank(b) > rank(a) ? b : a));
      const loud = rank(head) > 0;
      const show = () =>
        this.showTip(group.x, [
          el("div.tiphead", {}, group.all[0].head),
          group.all
            .slice(0, 6)
            .map((m) => el("div.tipdecision", {}, outcomePill(m.outcome), el("span", {}, ` ${m.label}`), el("p", {}, m.reason))),
          group.all.length > 6 ? el("p.more", {}, `and ${group.all.length - 6} more`) : null,
        ]);
      const hide = () => (this.tip.hidden = true);
      if (loud)
        this.root.append(
          svg("line", { x1: group.x, x2: group.x, y1: 38, y2: this.box.bottom, class: "event " + TONES[head.outcome] }),
        );
      this.root.append(
        svg(
          "g",
          {
            class: "mark " + (TONES[head.outcome] || "plain"),
            tabindex: "0",
            role: "img",
            "data-outcome": head.outcome,
            "aria-label": group.all.map((m) => `${m.outcome}: ${m.reason}`).join("; "),
            onpointerenter: show,
            onpointerdown: show,
            onfocus: show,
            onpointerleave: hide,
            onblur: hide,
          },
          svg("circle", { cx: group.x, cy: 29, r: 13, class: "target" }),
          svg("circle", { cx: group.x, cy: 29, r: loud ? 8 : 5, class: "knob" }),
          loud ? svg("text", { x: group.x, y: 33 }, GLYPHS[head.outcome] || "") : null,
        ),
      );
    }
  }

  listen() {
    const value = (event) => {
      const px = event.clientX - this.root.getBoundingClientRect().left;
      const [a, b] = this.xs;
      return a + ((px - this.box.left) / (this.box.right - this.box.left)) * (b - a);
    };
    let from = null;
    const area = this.rect(this.box.left, this.box.top, this.box.right, this.box.bottom, { class: "area" });
    const drag = svg("rect", { class: "drag", y: this.box.top, height: this.box.bottom - this.box.top });
    const span = (to) => [Math.max(Math.min(from, to), this.xs[0]), Math.min(Math.max(from, to), this.xs[1])];
    area.addEventListener("pointermove", (event) => {
      if (from === null) return this.board.hover(this.nearest(value(event)), this);
      const [a, b] = span(value(event)).map((v) => this.X(v));
      drag.setAttribute("x", a);
      drag.setAttribute("width", b - a);
    });
    area.addEventListener("pointerleave", () => this.board.hover(null, this));
    area.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "mouse" || event.button) return this.board.hover(this.nearest(value(event)), this);
      from = value(event);
      area.setPointerCapture(event.pointerId);
      this.board.hover(null, this);
    });
    area.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const range = span(value(event));
      from = null;
      drag.setAttribute("width", 0);
      if (this.X(range[1]) - this.X(range[0]) > 8) this.board.zoomTo(range);
    });
    area.addEventListener("dblclick", () => this.board.zoomTo(null));
    this.root.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const all = this.places();
      if (!way || !all.length) return;
      event.preventDefault();
      const here = all.indexOf(this.at);
      this.board.hover(all[here < 0 ? (way > 0 ? 0 : all.length - 1) : Math.min(Math.max(here + way, 0), all.length - 1)], this);
    });
    this.root.addEventListener("blur", () => this.board.hover(null, this));
    this.root.append(drag, area);
  }

  places() {
    // every x of a visible line, once a drawing
    this.stops ??= [...new Set(this.lines.flatMap((l) => l.x))]
      .filter((x) => x >= this.xs[0] && x <= this.xs[1])
      .sort((a, b) => a - b);
    return this.stops;
  }
  nearest(x) {
    return this.places().reduce((best, p) => (best === null || Math.abs(p - x) < Math.abs(best - x) ? p : best), null);
  }

  point(x, mine) {
    // the crosshair at x (null: none), and every legend reads there
    this.at = x;
    if (!this.spec || !this.cross) return;
    this.cross.replaceChildren();
    this.tip.hidden = true;
    this.writeLegend(x);
    if (x === null || x < this.xs[0] || x > this.xs[1]) return;
    this.cross.append(svg("line", { x1: this.X(x), x2: this.X(x), y1: this.box.top, y2: this.box.bottom }));
    const rows = this.lines.map((line) => ({ line, i: near(line, x) })).filter((row) => row.i !== null);
    for (const { line, i } of rows)
      this.cross.append(svg("circle", { cx: this.X(line.x[i]), cy: this.Y(line.y[i]), r: 4, style: { "--c": line.colour } }));
    if (!mine || !rows.length) return;
    const band = this.spec.bands.find((b) => x >= b.from && x <= b.to && x > this.spec.domain[0]) || this.spec.bands[0];
    const phase = (this.spec.strip || []).findLast((p) => x >= p.from && x <= p.to);
    rows.sort((a, b) => b.line.y[b.i] - a.line.y[a.i]);
    this.showTip(this.X(x), [
      el(
        "div.tiphead",
        {},
        this.spec.axis === "step" ? "step " : "",
        AXES[this.spec.axis].format(x),
        band ? ` · ${band.label}` : "",
        phase ? ` · ${phase.label}` : "",
      ),
      rows.map(({ line, i }) =>
        el(
          "div.tiprow",
          {},
          el("i", { style: { "--c": line.colour } }),
          el("span", {}, line.label),
          el("b", {}, this.spec.format((line.raw || line.y)[i], true)),
          line.lo
            ? el("small", {}, `${this.spec.format(line.lo[i], true)} – ${this.spec.format(line.hi[i], true)}`)
            : el("small", {}, line.lost[i] ? "thrown away" : ""),
        ),
      ),
    ]);
  }

  showTip(x, content) {
    this.tip.replaceChildren();
    fill(this.tip, {}, content);
    this.tip.hidden = false;
    const width = this.tip.offsetWidth,
      room = this.figure.clientWidth,
      left = this.stagebox.offsetLeft + x;
    this.tip.style.left =
      Math.max(4, Math.min(left + 14 + width > room ? left - width - 14 : left + 14, room - width - 4)) + "px";
    this.tip.style.top = this.stagebox.offsetTop + (this.box.top > 10 ? this.box.top + 6 : 4) + "px";
  }

  writeLegend(x = null) {
    const values = this.spec.lines.map((line) => {
      const i = x === null ? lastStanding(line) : near(line, x);
      return i === null ? "" : this.spec.format((line.raw || line.y)[i], true);
    });
    const shape = this.spec.lines.map((l) => l.id + l.colour + (this.dashes.get(l) || "")).join("|");
    if (shape !== this.shape || !this.legend.childElementCount) {
      this.shape = shape;
      this.legend.replaceChildren(
        ...this.spec.lines.map((line) =>
          el(
            "button",
            {
              type: "button",
              title: "show or hide",
              style: { "--c": line.colour },
              onclick: () => {
                if (!this.hidden.delete(line.id)) this.hidden.add(line.id);
                this.board.hidden ? this.board.redraw() : this.draw();
              },
            },
            el("i" + (line.thin ? ".thin" : this.dashes.get(line) || "").trim().replace(/^(?=dash)/, ".")),
            el("span", {}, line.label),
            el("b"),
          ),
        ),
      );
    }
    [...this.legend.children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(!this.hidden.has(this.spec.lines[i].id)));
      button.lastChild.textContent = values[i];
    });
  }
}
