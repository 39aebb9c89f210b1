// Every run a dot: one share against another, one colour an arm, with a cross at the mean of its seeds and a link to the run.

// make() -> { title, note, x: label, y: label, arms: [{ id, label, colour, dots: [{ x, y, label, href }], mean: { x, y } }] }
class Dots {
  constructor(board, make) {
    this.board = board;
    this.make = make;
    this.title = el("h3");
    this.note = el("p.note");
    this.legend = el("div.legend");
    this.stagebox = el("div.canvas");
    this.tip = el("div.tip", { hidden: true });
    this.figure = el("figure.plot", {}, el("figcaption", {}, this.title, this.note, this.legend), this.stagebox, this.tip);
    this.width = 0;
    board.plots.push(this);
    new ResizeObserver(() => {
      if (Math.abs(this.stagebox.clientWidth - this.width) > 1) this.draw();
    }).observe(this.stagebox);
  }

  point() {} // no crosshair: its axes are not the steps of the other charts

  draw() {
    const spec = this.make();
    this.figure.hidden = !spec;
    this.width = this.stagebox.clientWidth;
    if (!spec || !this.width) return;
    this.title.textContent = spec.title;
    this.note.textContent = spec.note;
    const height = Math.min(this.width, 360);
    this.box = { left: 50, right: this.width - 14, top: 10, bottom: height - 40 };
    this.root = svg("svg", { viewBox: `0 0 ${this.width} ${height}`, role: "group", "aria-label": `${spec.y} against ${spec.x}` });
    this.ground(spec);
    for (const arm of spec.arms.filter((a) => !this.board.hidden.has(a.id))) this.arm(arm, spec);
    this.stagebox.replaceChildren(this.root);
    this.legend.replaceChildren(...spec.arms.map((arm) => armButton(this.board, arm)));
  }

  X(v) {
    return this.box.left + v * (this.box.right - this.box.left);
  }
  Y(v) {
    return this.box.bottom - v * (this.box.bottom - this.box.top);
  }

  ground(spec) {
    const { left, right, top, bottom } = this.box;
    for (const v of [0, 0.25, 0.5, 0.75, 1]) {
      this.root.append(
        svg("line", { x1: left, x2: right, y1: this.Y(v), y2: this.Y(v), class: "gridline" }),
        svg("line", { x1: this.X(v), x2: this.X(v), y1: top, y2: bottom, class: "gridline" }),
        svg("text", { x: left - 8, y: this.Y(v) + 4, class: "tick y" }, pct(v, 0)),
        svg("text", { x: this.X(v) - (v === 1 ? 10 : 0), y: bottom + 17, class: "tick x" }, pct(v, 0)),
      );
    }
    this.root.append(
      svg("text", { x: (left + right) / 2, y: bottom + 34, class: "tick x" }, spec.x),
      svg("text", { x: left + 6, y: top + 14 }, spec.y),
    );
  }

  arm(arm, spec) {
    const style = { style: { "--c": arm.colour } };
    for (const dot of arm.dots) {
      const show = () => this.show(arm, dot, spec);
      const hide = () => (this.tip.hidden = true);
      const circle = svg("circle", { cx: this.X(dot.x), cy: this.Y(dot.y), r: 5, class: "dot", "fill-opacity": 0.55, ...style });
      const target = svg("circle", { cx: this.X(dot.x), cy: this.Y(dot.y), r: 11, class: "target" });
      const told = { "aria-label": `${arm.label}, ${dot.label}`, onpointerenter: show, onfocus: show, onpointerleave: hide, onblur: hide };
      const place = dot.href ? svg("a", { href: dot.href, ...told }) : svg("g", { tabindex: "0", ...told });
      place.append(circle, target);
      this.root.append(place);
    }
    if (!arm.mean) return;
    const [x, y] = [this.X(arm.mean.x), this.Y(arm.mean.y)];
    this.root.append(
      svg("path", { d: `M${x - 7} ${y}H${x + 7}M${x} ${y - 7}V${y + 7}`, class: "line", "pointer-events": "none", ...style }),
    );
  }

  show(arm, dot, spec) {
    this.tip.replaceChildren(
      el("div.tiphead", {}, `${arm.label} · ${dot.label}`),
      el("div", {}, `${spec.x} ${pct(dot.x)}, ${spec.y} ${pct(dot.y)}`),
    );
    this.tip.hidden = false;
    const room = this.figure.clientWidth - this.tip.offsetWidth - 4;
    this.tip.style.left = Math.max(4, Math.min(this.stagebox.offsetLeft + this.X(dot.x) + 12, room)) + "px";
    this.tip.style.top = this.stagebox.offsetTop + this.Y(dot.y) + 12 + "px";
  }
}

// Shows or hides one arm in every chart of a board.
function armButton(board, arm) {
  const flip = () => {
    if (!board.hidden.delete(arm.id)) board.hidden.add(arm.id);
    board.redraw();
  };
  const on = String(!board.hidden.has(arm.id));
  const attrs = { type: "button", title: "show or hide", "aria-pressed": on, style: { "--c": arm.colour }, onclick: flip };
  return el("button", attrs, el("i"), el("span", {}, arm.label));
}
