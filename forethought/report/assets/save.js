// A chart as a file: its numbers as CSV, its picture as PNG. Nothing leaves the page.

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "font-size", "font-style", "font-weight"];
const CAPTION = 50; // pixels above the chart for its title and legend

function download(name, blob) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const fileName = (plot) => plot.spec.title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "chart";

// One row a point of each line: the x axis as it is shown, the value as measured, its interval, whether a roll back undid it.
function tableOf(plot) {
  const quoted = (v) => (/[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v);
  const rows = [[AXES[plot.spec.axis].name, "line", "value", "low", "high", "rolled back"]];
  for (const line of plot.spec.lines)
    line.x.forEach((x, i) =>
      rows.push([x, line.label, (line.raw || line.y)[i], line.lo ? line.lo[i] : "", line.hi ? line.hi[i] : "", Number(line.lost[i])]),
    );
  return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

function saveTable(plot) {
  download(fileName(plot) + ".csv", new Blob([tableOf(plot)], { type: "text/csv" }));
}

// The drawing with the styles it has now written into it, since a file has no style sheet; title and legend above it.
function pictureOf(plot) {
  const copy = plot.root.cloneNode(true);
  const [from, into] = [plot.root, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  from.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of DRAWN) into[i].style.setProperty(name, style.getPropertyValue(name));
    into[i].style.setProperty("text-anchor", style.getPropertyValue("text-anchor"));
  });
  copy.querySelectorAll(".area, .drag, .cross, .target").forEach((node) => node.remove());
  const ink = getComputedStyle(document.body);
  const text = (x, y, what, colour, weight) =>
    svg("text", { x, y, style: { fill: colour, "font-weight": weight, "font-size": "13px" } }, what);
  const [width, height] = [plot.width, plot.height + CAPTION];
  const card = svg("rect", { x: 0, y: -CAPTION, width, height, style: { fill: getComputedStyle(plot.figure).backgroundColor } });
  let x = 10;
  const legend = plot.lines.map((line) => {
    const at = x;
    x += line.label.length * 7.6 + 18;
    return text(at, -12, line.label, getComputedStyle(plot.figure).getPropertyValue(line.colour.slice(4, -1)) || ink.color, 600);
  });
  copy.prepend(card, text(10, -31, plot.spec.title, ink.color, 700), ...legend);
  for (const [name, value] of Object.entries({ viewBox: `0 ${-CAPTION} ${width} ${height}`, width: 2 * width, height: 2 * height }))
    copy.setAttribute(name, value);
  copy.style.setProperty("font-family", ink.fontFamily);
  return copy;
}

function savePicture(plot) {
  const drawing = pictureOf(plot);
  const [width, height] = ["width", "height"].map((name) => Number(drawing.getAttribute(name)));
  const image = new Image();
  image.onload = () => {
    const canvas = el("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    canvas.toBlob((blob) => download(fileName(plot) + ".png", blob), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(drawing));
}
