// Small tools for elements: making them, tooltips, announcements to screen readers.

/** An element; `on...` attributes are listeners, null and false attributes are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

export function announce(text) {
  byId("live").textContent = text;
}

/** Shows lines beside a point; the first is the title. */
export function showTip(lines, x, y) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.filter(Boolean).map((line, i) => h(i ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth - width - 8;
  tip.style.left = `${Math.max(8, Math.min(x + 14, room))}px`;
  tip.style.top = `${y + 18 + height > window.innerHeight ? Math.max(4, y - height - 10) : y + 18}px`;
}

export function hideTip() {
  byId("tip").hidden = true;
}

/** Tooltips of everything drawn in a figure: `lines` gives those of an element's datum, or null. */
export function tips(node, lines) {
  node.addEventListener("pointermove", (event) => {
    const found = event.target.__data__ === undefined ? null : lines(event.target.__data__, event.target);
    if (found) showTip(found, event.clientX, event.clientY);
    else hideTip();
  });
  node.addEventListener("pointerleave", hideTip);
}

/** A labelled drop-down list; `groups` is [[heading or "", [[value, text], ...]], ...]. */
export function choice(id, label, groups, value, change) {
  const options = groups
    .filter(([, list]) => list.length)
    .map(([heading, list]) => {
      const made = list.map(([key, text]) =>
        h("option", { value: key, selected: String(key) === String(value) }, text),
      );
      return heading ? h("optgroup", { label: heading }, made) : made;
    });
  return h(
    "label",
    { class: "field", for: id },
    h("span", {}, label),
    h("select", { id, onchange: (event) => change(event.target.value) }, options),
  );
}

/** A labelled slider; `text` says what a position means. While it moves, `change` runs once a frame at most. */
export function slider(id, label, { min, max, value, text }, change) {
  let waiting = null;
  const later = (now) => {
    if (waiting == null)
      requestAnimationFrame(() => {
        const last = waiting;
        waiting = null;
        change(last);
      });
    waiting = now;
  };
  const output = h("output", { for: id }, text(value));
  const input = h("input", {
    id,
    type: "range",
    min,
    max,
    step: 1,
    value,
    "aria-valuetext": text(value),
    oninput: (event) => {
      const now = Number(event.target.value);
      output.textContent = text(now);
      event.target.setAttribute("aria-valuetext", text(now));
      later(now);
    },
  });
  return h("label", { class: "field slider", for: id }, h("span", {}, label), input, output);
}

/** A slider follows the state when something else than it changed that. */
export function follow(id, value, text) {
  const input = byId(id);
  if (!input) return;
  if (Number(input.value) !== value) input.value = value;
  input.setAttribute("aria-valuetext", text);
  input.parentElement.querySelector("output").textContent = text;
}

export function check(id, label, checked, change) {
  return h(
    "label",
    { class: "field check", for: id },
    h("input", { id, type: "checkbox", checked, onchange: (event) => change(event.target.checked) }),
    h("span", {}, label),
  );
}

export function button(text, click, attributes = {}) {
  return h("button", { type: "button", onclick: click, ...attributes }, text);
}

/** A table of text and numbers; numbers are set right. */
export function table(header, rows, caption) {
  const number = header.map(
    (_, i) =>
      rows.some((row) => typeof row[i] === "number") ||
      rows.every((row) => /^[\u2212\d.\s%n/a]*$/.test(String(row[i] ?? ""))),
  );
  const cell = (tag, text, i) =>
    h(
      tag,
      { class: number[i] ? "number" : null, scope: tag === "th" ? "col" : null },
      text == null ? "" : String(text),
    );
  return h(
    "table",
    {},
    caption ? h("caption", {}, caption) : null,
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        header.map((text, i) => cell("th", text, i)),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          {},
          row.map((text, i) => cell("td", text, i)),
        ),
      ),
    ),
  );
}
