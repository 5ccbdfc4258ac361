// The search box: components (23.3, m5), tasks, roles, prompts, views. A combobox as the WAI-ARIA practices describe it.
import { idOf, nameOf, spoken } from "./data.js";
import { byId, h } from "./dom.js";
import { token } from "./format.js";

const MOST = 12;

function matches(ctx, text) {
  const { model, task } = ctx;
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const found = [];
  const id = idOf(model, wanted.replace(/^head\s+/, ""));
  const component = (one) =>
    found.push({
      text: spoken(model, one),
      about: task.roleOf.get(one)?.label ?? "component",
      go: () => ctx.open(one),
    });
  if (id != null) component(id);
  for (const one of model.ids)
    if (one !== id && found.length < 6 && /^[\dm]/.test(wanted) && nameOf(model, one).startsWith(wanted))
      component(one);
  for (const t of model.tasks)
    if (`${t.name} ${t.words}`.toLowerCase().includes(wanted))
      found.push({
        text: t.words,
        about: "task",
        go: () => ctx.set({ task: t.name, order: null, threshold: null, step: null, prompt: null }),
      });
  for (const [one, role] of task.roleOf)
    if (
      found.length < MOST &&
      [role.label, ...(role.labels ?? [])].join(" ").toLowerCase().includes(wanted) &&
      one !== id
    )
      component(one);
  const number = /^(?:prompt|p|#)\s*(\d+)$/.exec(wanted);
  for (const p of task.prompts)
    if (number ? p.prompt === Number(number[1]) : wanted.length > 2 && p.tokens.join("").toLowerCase().includes(wanted))
      found.push({
        text: `prompt ${p.prompt}`,
        about: `\u2026 ${token(p.answer ?? "")}`,
        go: () => ctx.set({ view: "prompt", prompt: p.prompt }),
      });
  for (const view of ["graph", "matrix", "prompt", "compare", ...(model.order ? ["order"] : [])])
    if (view.startsWith(wanted)) found.push({ text: view, about: "view", go: () => ctx.set({ view }) });
  return found.slice(0, MOST);
}

export function setUpSearch(context) {
  const [input, list] = [byId("search"), byId("found")];
  let [options, active] = [[], 0];
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const show = () => {
    list.replaceChildren(
      ...options.map((option, i) =>
        h(
          "li",
          {
            id: `found-${i}`,
            role: "option",
            "aria-selected": i === active ? "true" : "false",
            onpointerdown: (event) => {
              event.preventDefault();
              take(i);
            },
          },
          option.text,
          h("span", {}, ` ${option.about}`),
        ),
      ),
      ...(options.length || !input.value.trim()
        ? []
        : [h("li", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "nothing of that name")]),
    );
    list.hidden = !list.childNodes.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    if (options.length) input.setAttribute("aria-activedescendant", `found-${active}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const take = (i) => {
    const option = options[i];
    if (!option) return;
    close();
    input.value = "";
    options = [];
    option.go();
  };
  input.addEventListener("input", () => {
    [options, active] = [matches(context(), input.value), 0];
    show();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    else if (event.key === "Enter") take(active);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      active = (active + (event.key === "ArrowDown" ? 1 : -1) + options.length) % Math.max(1, options.length);
      show();
      event.preventDefault();
    }
  });
  input.addEventListener("blur", close);
}
