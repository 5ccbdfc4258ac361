// Saving a view: its drawings as one SVG with the colours of the page written out, its table as CSV.

const STYLES = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-opacity",
  "stroke-dasharray",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "display",
  "visibility",
  "paint-order",
];

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** A copy of a drawing that needs no style sheet. */
function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [svg.querySelectorAll("*"), copy.querySelectorAll("*")];
  from.forEach((element, i) => {
    const style = getComputedStyle(element);
    const text = STYLES.map((name) => [name, style.getPropertyValue(name)])
      .filter(([, value]) => value && value !== "none 0px")
      .map(([name, value]) => `${name}:${value.replaceAll('"', "'")}`)
      .join(";");
    to[i].setAttribute("style", text);
    to[i].removeAttribute("class");
  });
  for (const target of copy.querySelectorAll("[style*='fill-opacity:0;'], [style*='fill-opacity: 0;']"))
    target.remove();
  copy.removeAttribute("class");
  return copy;
}

/** All drawings of a figure, one below the other, under a title and above the caption. */
export function svgText(figure, title, caption) {
  const paper = getComputedStyle(document.body).backgroundColor;
  const ink = getComputedStyle(document.body).color;
  const family = getComputedStyle(document.body).fontFamily.replaceAll('"', "'");
  const drawings = [...figure.querySelectorAll("svg.figure")];
  const width = Math.max(420, ...drawings.map((svg) => svg.viewBox.baseVal.width)) + 24;
  const letters = Math.floor((width - 24) / 5.7);
  const lines = caption.split(" ").reduce(
    (rows, word) => {
      if (`${rows.at(-1)} ${word}`.length > letters) rows.push(word);
      else rows[rows.length - 1] = `${rows.at(-1)} ${word}`.trim();
      return rows;
    },
    [""],
  );
  let y = 40;
  const parts = drawings.map((svg) => {
    const copy = standalone(svg);
    copy.setAttribute("x", 12);
    copy.setAttribute("y", y);
    y += svg.viewBox.baseVal.height + 16;
    return new XMLSerializer().serializeToString(copy);
  });
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const written = lines
    .map((text, i) => `<text x="12" y="${y + 14 + i * 14}" font-size="11" fill="${ink}">${escape(text)}</text>`)
    .join("");
  const height = y + 20 + lines.length * 14;
  const hatch = new XMLSerializer().serializeToString(standalone(document.getElementById("defs")));
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="${family}"><title>${escape(title)}</title>${hatch}<rect width="100%" height="100%" fill="${paper}"/><text x="12" y="24" font-size="15" font-weight="bold" fill="${ink}">${escape(title)}</text>${parts.join("")}${written}</svg>\n`;
}

export function csvText({ header, rows }) {
  const cell = (value) =>
    value == null ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
  return `${[header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

export const saveSvg = (name, figure, title, caption) =>
  download(`${name}.svg`, "image/svg+xml", svgText(figure, title, caption));
export const saveCsv = (name, table) => download(`${name}.csv`, "text/csv", csvText(table));
