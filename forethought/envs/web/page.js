// What a page shows, as lines of text, and what is done to it. Installed before the page's own scripts, so that
// timers are seen. One global, `forethought`; no text of a model is ever part of a script: values are arguments.
(() => {
  const SVG = new Set(["rect", "circle", "ellipse", "polygon", "path", "line", "text"]);
  const SKIPPED = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "META", "LINK"]);
  const INLINE = /^(BR|B|I|EM|STRONG)$/;
  const NAMED_BY_TEXT = /^(a|button|label|h[1-6]|th|td|option|legend)$/;
  const FIELD = /^(textbox|textarea|password|spinbutton|checkbox|radio|select|slider)$/;
  const CLOSED = /^(link|button|textbox|password|checkbox|radio|spinbutton)$/; // nothing inside is looked at
  // ARIA roles that only group: what is inside them counts
  const GROUPS = /^(presentation|none|tablist|tabpanel|dialog|menu|application|log|status)$/;
  // classes that libraries put everywhere, and states, which are told apart
  const EMPTY_CLASSES = /\b(ui-[\w-]+|alink|hide|clear|nohref|hasDatepicker|active|clicked|selected)\b/g;

  // Zero-width characters are white space here: nobody sees them, and no model can type them.
  const clean = (text) => (text || "").replace(/[\s\u200b\u200c\u200d\u2060\ufeff]+/g, " ").trim();
  const own = (e) => clean([...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join(" "));
  const attribute = (e, name) => e.getAttribute(name) || "";
  const tag = (e) => e.tagName.toLowerCase();

  // ---- timers: a page with one that is due within a second is not at rest
  const pending = new Set();
  const SOON = 1000;
  const setTimer = window.setTimeout.bind(window), clearTimer = window.clearTimeout.bind(window);
  window.setTimeout = (call, delay, ...args) => {
    const id = setTimer(() => {
      pending.delete(id);
      typeof call === "function" ? call(...args) : (0, eval)(call);
    }, delay);
    if ((delay || 0) <= SOON) pending.add(id);
    return id;
  };
  window.clearTimeout = (id) => {
    pending.delete(id);
    clearTimer(id);
  };

  function visible(e) {
    const style = getComputedStyle(e);
    if (style.display === "none" || style.visibility === "hidden" || style.opacity === "0") return false;
    if (style.display === "contents") return true;
    const box = e.getBoundingClientRect();
    return (box.width > 0 && box.height > 0) || tag(e) === "line" || e.children.length > 0;
  }

  function colour(css) {
    const m = /rgba?\((\d+), ?(\d+), ?(\d+)(?:, ?([\d.]+))?\)/.exec(css || "");
    if (!m) return css || "";
    if (m[4] === "0") return "";
    return "#" + m.slice(1, 4).map((n) => (+n).toString(16).padStart(2, "0")).join("");
  }

  function role(e) {
    const t = tag(e), classes = ` ${attribute(e, "class")} `, said = attribute(e, "role").toLowerCase();
    if (said && !GROUPS.test(said)) return said;
    if (t === "a" || classes.includes(" alink ")) return "link";
    if (classes.includes(" ui-menu-item-wrapper ")) return "menuitem";
    if (t === "button") return "button";
    if (t === "input") {
      const type = attribute(e, "type").toLowerCase();
      if (/^(button|submit|reset|image)$/.test(type)) return "button";
      if (type === "checkbox" || type === "radio" || type === "password") return type;
      return { range: "slider", number: "spinbutton" }[type] || "textbox";
    }
    if (t === "textarea" || t === "select" || t === "option" || t === "img" || t === "iframe") return t;
    if (/^h[1-6]$/.test(t)) return "heading";
    if (SVG.has(t) && e.ownerSVGElement) return t;
    return t === "th" || t === "td" ? "cell" : "text";
  }

  // The label of a field: by `for`, around it, its placeholder, its row, the text beside it.
  function label(e, r) {
    const root = e.getRootNode();
    const by = e.id && root.querySelector ? root.querySelector(`label[for="${CSS.escape(e.id)}"]`) : null;
    const around = e.closest("label");
    for (const found of [by, around]) if (found && clean(found.textContent)) return clean(found.textContent);
    if (e.placeholder) return clean(e.placeholder);
    if (r === "checkbox" || r === "radio") {
      const next = e.nextSibling;
      if (next && clean(next.textContent)) return clean(next.textContent);
    }
    const row = e.closest("tr");
    if (row && clean(row.textContent)) return clean(row.textContent);
    let beside = e.previousSibling;
    const parent = e.parentElement;
    const alone = parent && parent.querySelectorAll("input,textarea").length === 1 && !parent.querySelector("button");
    if (!beside && alone) {
      beside = parent.previousElementSibling;
      if (!beside || e.nextElementSibling) beside = e.nextElementSibling;
    }
    const seen = (n) => clean(n.textContent) && (n.nodeType !== 1 || visible(n));
    while (beside && !seen(beside)) beside = beside.previousSibling;
    const text = beside ? clean(beside.textContent) : "";
    const things = "a,button,input,select";
    const plain = beside && (beside.nodeType !== 1 || !(beside.matches(things) || beside.querySelector(things)));
    return text && text.length < 40 && plain ? text.replace(/:$/, "") : "";
  }

  function named(e, r) {
    const said = attribute(e, "aria-label") || attribute(e, "title") || attribute(e, "alt");
    if (said && r !== "text") return clean(said);
    if (FIELD.test(r)) return label(e, r) || (e.id && !/\d/.test(e.id) ? e.id : "") || attribute(e, "name");
    if (r === "button" && tag(e) === "input") return clean(e.value);
    const whole = NAMED_BY_TEXT.test(tag(e)) || r === "link" || r === "button";
    return (whole ? clean(e.textContent) : own(e)) || hint(e);
  }

  // Icons have no text; their classes say what they are.
  function hint(e) {
    const classes = clean(attribute(e, "class").replace(EMPTY_CLASSES, ""));
    return classes || (/[a-z]{3}/.test(e.id) && !/\d/.test(e.id) ? e.id : "");
  }

  function states(e, r) {
    const found = [];
    if (e.checked && (r === "checkbox" || r === "radio")) found.push("checked");
    if (/^(textbox|textarea|password|spinbutton|slider)$/.test(r) && e.value) found.push("= " + clean(e.value));
    if (r === "select" && e.options) {
      const chosen = [...e.options].filter((o) => o.selected).map((o) => clean(o.text));
      found.push("= " + chosen.join(", "));
    }
    if (attribute(e, "aria-selected") === "true" || attribute(e, "aria-expanded") === "true") found.push("open");
    if (/\b(active|clicked)\b/.test(attribute(e, "class")) && !e.children.length) found.push("on");
    if (e.disabled) found.push("disabled");
    if (e.ownerDocument.activeElement === e && e !== e.ownerDocument.body) found.push("focused");
    return found;
  }

  // Shapes have no name: colour, size and centre are all that can be seen of them.
  function shape(e, t) {
    const box = e.getBoundingClientRect();
    const points = attribute(e, "points").trim().split(/\s+/).length;
    const name = t === "text" ? clean(e.textContent) : t === "polygon" ? `polygon ${points}` : "";
    const font = attribute(e, "font-size") || e.style.fontSize || "";
    const size = t === "text" ? font : `${Math.round(box.width)}x${Math.round(box.height)}`;
    const centre = [box.left + box.width / 2, box.top + box.height / 2].map(Math.round).join(",");
    return [name, [attribute(e, "fill") || e.style.fill || "", size, centre].filter(Boolean)];
  }

  // ---- the walk

  function lines(seen, skip, most) {
    const add = (e, r, name, state) => seen.push({ element: e, role: r, name, state: state || [] });
    const full = () => seen.length >= most;

    function inside(e) {
      for (const child of (e.shadowRoot || e).children) walk(child);
    }

    function walk(e) {
      if (full() || SKIPPED.has(e.tagName) || skip.has(e.id) || !visible(e)) return;
      const r = role(e), t = tag(e);
      if (t === "iframe") return frame(e);
      if (r === "tab" && e.querySelector("a")) {
        return add(e.querySelector("a"), "tab", clean(e.querySelector("a").textContent), states(e, r));
      }
      if (e.dataset && e.dataset.index && !e.children.length && !own(e)) {
        return add(e, "cell", e.dataset.index, [attribute(e, "class").replace("mark-", "")].filter(Boolean));
      }
      if (SVG.has(t) && e.ownerSVGElement) return add(e, t, ...shape(e, t));
      if (r !== "text" || (t === "li" && own(e))) return thing(e, r);
      if (t === "label" && e.querySelector("input")) return inside(e);
      const parts = [...e.children].filter((c) => !INLINE.test(c.tagName) && !SKIPPED.has(c.tagName));
      if (e.shadowRoot) return inside(e);
      return parts.length ? mixed(e) : text(e, t, r);
    }

    function frame(e) {
      let inner = null;
      try {
        inner = e.contentDocument && e.contentDocument.body;
      } catch (closed) {} // of another origin
      if (inner) return walk(inner);
      add(e, "iframe", clean(attribute(e, "title") || attribute(e, "name")), ["cannot be read"]);
    }

    function thing(e, r) {
      if (r === "cell" && e.children.length) {
        if (own(e)) add(e, r, own(e), states(e, r));
        return inside(e);
      }
      const name = named(e, r);
      if (name || r !== "tab") add(e, r, name, states(e, r));
      if (r === "select" && e.options) {
        for (const o of e.options) {
          if (full()) return;
          seen.push({ element: null, role: "option", name: clean(o.text), state: [] });
        }
      } else if (!CLOSED.test(r)) inside(e);
    }

    function text(e, t, r) {
      const said = clean(e.textContent), class_ = hint(e);
      const painted = /background/.test(attribute(e, "style"));
      const back = painted ? colour(getComputedStyle(e).backgroundColor) : "";
      if (said && t !== "br") add(e, "text", said, [class_ ? "." + class_ : "", back].filter(Boolean));
      else if (class_ || back || (e.dataset && e.dataset.color)) {
        add(e, "img", e.dataset.color || class_, [back, ...states(e, r)].filter(Boolean));
      }
    }

    // text and elements side by side: pieces of text stay in order with what is between them
    function mixed(e) {
      let piece = "";
      const flush = () => {
        if (clean(piece)) add(e, "text", clean(piece));
        piece = "";
      };
      for (const n of e.childNodes) {
        if (n.nodeType === 3) piece += n.data;
        else if (n.nodeType !== 1) continue;
        else if (INLINE.test(n.tagName) && !n.children.length && !hint(n)) piece += ` ${n.textContent} `;
        else {
          flush();
          walk(n);
        }
      }
      flush();
    }

    walk(document.body);
  }

  // ---- ids: drawn anew at each snapshot, so that none can be learned by heart

  function drawer(seed, refs) {
    let x = (Math.imul(seed, 2654435761) + 12345) >>> 0 || 1;
    const next = () => {
      x ^= x << 13;
      x >>>= 0;
      x ^= x >>> 17;
      x ^= x << 5;
      x >>>= 0;
      return x / 4294967296;
    };
    const left = Array.from({ length: refs }, (_, i) => i + 1);
    let more = refs;
    return () => {
      if (!left.length) return ++more; // a page with more lines than ids goes on counting
      const at = Math.floor(next() * left.length), found = left[at];
      left[at] = left[left.length - 1];
      left.pop();
      return found;
    };
  }

  let elements = new Map();
  const MOST = 2000; // lines of a snapshot; what follows is cut, and `cut` says so
  let skipped = new Set();

  // Where the document of an element begins in the window: that of a frame is inside of others.
  function origin(e) {
    const at = { x: 0, y: 0 };
    for (let inner = e.ownerDocument.defaultView; inner && inner !== window; inner = inner.parent) {
      const frame = inner.frameElement, b = frame.getBoundingClientRect();
      at.x += b.left + frame.clientLeft;
      at.y += b.top + frame.clientTop;
    }
    return at;
  }

  function box(e) {
    if (!e) return [];
    const b = e.getBoundingClientRect(), from = origin(e);
    return [b.left + from.x, b.top + from.y, b.width, b.height].map(Math.round);
  }

  function snapshot(seed, refs) {
    const seen = [], draw = drawer(seed, refs);
    if (document.body) lines(seen, skipped, MOST);
    elements = new Map();
    const found = seen.map(({ element, role, name, state }) => {
      const ref = element ? "e" + draw() : "";
      if (ref) elements.set(ref, element);
      return { ref, role, name, state, box: box(element) };
    });
    return { lines: found, cut: found.length >= MOST };
  }

  // All that can be seen, without ids: two equal ones mean that nothing moves.
  function signature() {
    const seen = [];
    if (document.body) lines(seen, skipped, MOST);
    return JSON.stringify(seen.map((s) => [s.role, s.name, s.state, box(s.element)]));
  }

  const wait = (ms) => new Promise((done) => setTimer(done, ms));

  // At rest: no timer that is due within a second, and two equal looks `gap` ms apart. False: not within `most` ms.
  async function rest(gap, most) {
    const end = performance.now() + most;
    let before = pending.size ? null : signature();
    while (performance.now() < end) {
      await wait(gap);
      const now = pending.size ? null : signature();
      if (now !== null && now === before) return true;
      before = now;
    }
    return false;
  }

  // ---- what is done: `found` says why it cannot be ("" : it can)

  function element(ref) {
    const e = elements.get(ref);
    return e && e.isConnected ? e : null;
  }

  // Where a pointer would hit it: {x, y, box}, or {status} of "stale", "hidden", "covered", "disabled".
  function place(ref, scroll) {
    const e = element(ref);
    if (!e) return { status: "stale" };
    if (scroll) e.scrollIntoView({ block: "center", inline: "nearest" });
    const b = e.getClientRects()[0] || e.getBoundingClientRect();
    const x = b.left + b.width / 2, y = b.top + b.height / 2, from = origin(e);
    const at = { x: x + from.x, y: y + from.y, box: box(e) };
    if (e.disabled) return { ...at, status: "disabled" };
    if (!visible(e) || !(b.width > 0 && b.height > 0)) return { ...at, status: "hidden" };
    const top = (e.getRootNode().elementFromPoint || document.elementFromPoint).call(e.getRootNode(), x, y);
    const hit = top && (top === e || e.contains(top) || top.contains(e) || (top.closest("label") || {}).control === e);
    return { ...at, status: hit ? "" : "covered" };
  }

  // Frames an element for the eye, or no longer.
  function point(ref, on) {
    const e = element(ref);
    if (!e) return;
    if (on) e.scrollIntoView({ block: "nearest", inline: "nearest" });
    e.style.outline = on ? "2px solid #d00000" : "";
  }

  const fire = (e, kind, Kind) => e.dispatchEvent(new (Kind || Event)(kind, { bubbles: true, cancelable: true }));

  // Events of an element itself, wherever it lies: as a click that always hits.
  function click(ref) {
    const e = element(ref);
    if (!e) return "stale";
    if (e.disabled) return "disabled";
    for (const kind of ["mouseover", "mousedown"]) fire(e, kind, MouseEvent);
    if (e.focus) e.focus();
    fire(e, "mouseup", MouseEvent);
    e.click ? e.click() : fire(e, "click", MouseEvent);
    return "";
  }

  function hover(ref) {
    const e = element(ref);
    if (!e) return "stale";
    for (const kind of ["mouseover", "mouseenter", "mousemove"]) fire(e, kind, MouseEvent);
    return "";
  }

  // What a date or time field holds: people write 04/29/2019 and 3:05 PM, the field wants ISO.
  function held(e, value) {
    const date = e.type === "date" && /^(\d{1,2})\/(\d{1,2})\/(\d{4})$/.exec(value);
    if (date) return `${date[3]}-${date[1].padStart(2, "0")}-${date[2].padStart(2, "0")}`;
    const time = e.type === "time" && /^(\d{1,2}):(\d{2})\s*([AP]M)$/i.exec(value);
    if (!time) return value;
    const hour = (+time[1] % 12) + (/p/i.test(time[3]) ? 12 : 0);
    return `${String(hour).padStart(2, "0")}:${time[2]}`;
  }

  function fill(ref, value) {
    const e = element(ref);
    if (!e) return "stale";
    if (e.disabled || e.readOnly) return "disabled";
    const field = /^(textbox|textarea|password|spinbutton|slider)$/.test(role(e)) && "value" in e;
    if (!field && !e.isContentEditable) return "no field";
    if (e.focus) e.focus();
    const wanted = held(e, value);
    if (field) e.value = wanted;
    else e.textContent = wanted;
    if (field && wanted && !e.value) return "not accepted"; // letters in a field of numbers
    fire(e, "input");
    fire(e, "keydown", KeyboardEvent);
    fire(e, "keyup", KeyboardEvent);
    fire(e, "change");
    return "";
  }

  function select(ref, values) {
    const e = element(ref);
    if (!e) return "stale";
    if (e.disabled) return "disabled";
    if (!e.options) return "no list";
    const known = [...e.options].map((o) => clean(o.text));
    if (!values.every((v) => known.includes(v)) || (!e.multiple && values.length !== 1)) return "no such option";
    for (const o of e.options) o.selected = values.includes(clean(o.text));
    fire(e, "input");
    fire(e, "change");
    return "";
  }

  // A popup of ours over everything, until its button is clicked. Without a text: the one that is there goes.
  let over = null;
  function popup(text, button) {
    if (over) over.remove();
    over = null;
    if (!text) return;
    const make = (kind, said) => Object.assign(document.createElement(kind), { textContent: said });
    over = make("div", "");
    over.style.cssText = "position:fixed;inset:0;z-index:2147483647;background:#fff;padding:8px";
    const closes = make("button", button);
    closes.addEventListener("click", (event) => {
      event.stopPropagation(); // the page must not count it
      popup("", "");
    });
    over.append(make("p", text), closes);
    document.body.append(over);
  }

  const skip = (ids) => {
    skipped = new Set(ids);
  };
  Object.defineProperty(window, "forethought", {
    value: Object.freeze({ snapshot, rest, place, point, click, hover, fill, select, popup, skip, clean }),
  });
})();
