// What the page holds, and how to ask for it. Any part may be missing or null: "not computed".
//
// An id is layer * (heads + 1) + head; the MLP of a layer has head = heads. Arrays over components have one value for
// each id. Fields of the JSON are described in scripts/atlas/report/atlas/page.py; beyond those, the page shows, where
// present: task.scores and model.scores, more metrics of components, {name: {title, value, low, high, unit, centre,
// about}}; edges.about, a sentence.

export function read() {
  const data = JSON.parse(document.getElementById("data").textContent);
  data.models = (data.models ?? []).filter((model) => model.n_layers > 0 && model.n_heads >= 0);
  for (const model of data.models) prepare(model);
  return data;
}

function prepare(model) {
  model.size = model.n_layers * (model.n_heads + 1);
  model.ids = Array.from({ length: model.size }, (_, id) => id);
  model.tasks = model.tasks ?? [];
  for (const task of model.tasks) {
    task.circuits = (task.circuits ?? []).filter((circuit) => circuit?.members);
    task.traces = (task.traces ?? []).filter((trace) => trace?.steps?.length);
    task.prompts = task.prompts ?? [];
    for (const trace of task.traces) if (trace.steps[0][0]?.length) trace.steps.unshift([[], 100, 0]); // the full model
    // A component that none of the repeated searches keeps has no row in their table
    if (task.runs > 0 && task.share) task.share = task.share.map((value) => value ?? 0);
    task.words = task.words || task.name.replaceAll("_", " ");
    task.roleOf = new Map();
    for (const role of task.roles ?? []) {
      const id = typeof role.id === "string" ? idOf(model, role.id) : role.id;
      if (id != null && !task.roleOf.has(id)) task.roleOf.set(id, role);
    }
  }
  // Main tasks with a circuit: those whose circuits are compared by colour
  model.main = model.tasks.filter((task) => task.main && reported(task));
  model.holders = new Map(model.ids.map((id) => [id, []]));
  for (const task of model.main) for (const id of reported(task).members) model.holders.get(id)?.push(task);
}

export const layerOf = (model, id) => Math.floor(id / (model.n_heads + 1));
export const headOf = (model, id) => id % (model.n_heads + 1);
export const isMlp = (model, id) => headOf(model, id) === model.n_heads;
export const reported = (task) => task.circuits.find((circuit) => circuit.reported) ?? null;

/** "3.1" for a head, "m3" for an MLP; -1 and -2 are the ends of edges. */
export function nameOf(model, id) {
  if (id === -1) return "embeddings";
  if (id === -2) return "logits";
  return isMlp(model, id) ? `m${layerOf(model, id)}` : `${layerOf(model, id)}.${headOf(model, id)}`;
}

/** As people read it aloud. */
export function spoken(model, id) {
  if (id < 0) return nameOf(model, id);
  return isMlp(model, id) ? `MLP m${layerOf(model, id)}` : `Head ${nameOf(model, id)}`;
}

/** The id of a name such as "3.1", "m3" or "a3.h1"; null where the model has no such component. */
export function idOf(model, name) {
  const mlp = /^m(?:lp)?\s*(\d+)$/i.exec(name ?? "");
  const head = /^(?:head|a|l)?\s*(\d+)\s*[.:,]?\s*h?(\d+)$/i.exec(/[.:,h]/i.test(name ?? "") ? name : "");
  const [layer, place] = mlp ? [+mlp[1], model.n_heads] : head ? [+head[1], +head[2]] : [Infinity, 0];
  if (layer >= model.n_layers || (head && place >= model.n_heads)) return null;
  return layer * (model.n_heads + 1) + place;
}

/** A number, or null where there is none. */
export function at(array, id) {
  const value = array?.[id];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** {value, low, high} of a component in a table of effects. */
export function effect(table, id) {
  return { value: at(table?.value, id), low: at(table?.low, id), high: at(table?.high, id) };
}

/** The table of single ablations by the kind of the study, else the first there is: [kind, table], or null. */
export function ownEffects(model, task) {
  const kinds = Object.keys(task.effects ?? {}).filter((kind) => task.effects[kind]?.value);
  const kind = kinds.includes(model.kind) ? model.kind : kinds[0];
  return kind ? [kind, task.effects[kind]] : null;
}

/** How many main tasks' reported circuits hold a component: "all", "some", "only" or null. */
export function kinOf(model, id) {
  const held = model.holders.get(id).length;
  if (!held) return null;
  return held === model.main.length && held > 1 ? "all" : held > 1 ? "some" : "only";
}

/** Ids still there after step k of a trace (0: the full model), and the step's own ids. */
export function membersAt(model, trace, k) {
  const left = new Set(model.ids);
  for (const [tried, , removed] of trace.steps.slice(0, k + 1))
    if (removed) for (const id of tried ?? []) left.delete(id);
  return {
    left,
    tried: new Set(trace.steps[k]?.[0] ?? []),
    percent: trace.steps[k]?.[1],
    removed: trace.steps[k]?.[2],
  };
}

export function traceOf(task, circuit) {
  const threshold = circuit?.searched ?? circuit?.threshold;
  return task.traces.find((t) => t.order === circuit?.order && t.threshold === threshold) ?? null;
}

/** "reported, 20 % (found by layers, 10 %)" or "layers, 20 %". */
export function circuitName(circuit) {
  const own = `${String(circuit.label).replaceAll("_", " ")}, ${circuit.threshold}\u00a0%`;
  if (circuit.label !== "reported" || !circuit.order) return own;
  return `${own} (found by ${String(circuit.order).replaceAll("_", " ")}, ${circuit.searched ?? circuit.threshold}\u00a0%)`;
}

/** What successor scores are towards, unless the state says otherwise. */
export const NEXT = "next";

/** Words of a class of members. */
export const classWords = (model, name) =>
  model.order?.classes?.find((one) => one.name === name)?.words ?? String(name).replaceAll("_", " ");

export const hasInside = (task) => Boolean(task.edges?.circuit?.some(Boolean));

/** Edges as objects, strongest first, only those of the reported edge circuit if `inside`. */
export function edgesOf(task, inside) {
  const edges = task.edges;
  if (!edges?.sender) return [];
  const rows = edges.sender.map((sender, i) => ({
    i,
    sender,
    receiver: edges.receiver[i],
    port: edges.port?.[i] ?? "",
    value: at(edges.value, i),
    low: at(edges.low, i),
    high: at(edges.high, i),
    inside: Boolean(edges.circuit?.[i]),
    class: edges.class?.[i] ?? null,
  }));
  const kept = inside ? rows.filter((row) => row.inside) : rows;
  return kept.sort((a, b) => Math.abs(b.value ?? 0) - Math.abs(a.value ?? 0) || a.i - b.i);
}

/** S rows of weights over earlier positions for one head on a prompt; null where the page holds none. */
export function pattern(prompt, id) {
  const slot = prompt?.attention?.heads?.indexOf(id) ?? -1;
  if (slot < 0 || !prompt.attention.bits) return null;
  prompt.bytes ??= Uint8Array.from(atob(prompt.attention.bits), (letter) => letter.charCodeAt(0));
  const size = prompt.tokens.length;
  const start = (slot * size * (size + 1)) / 2;
  return prompt.tokens.map((_, row) =>
    Array.from({ length: row + 1 }, (_, column) => prompt.bytes[start + (row * (row + 1)) / 2 + column] / 255),
  );
}

/** Every metric of components that a task has: {key, title, unit, scale, centre, table, about}. */
export function metricsOf(model, task, prompt) {
  const found = [];
  const add = (key, title, table, unit, scale, centre, about) => {
    if (table?.value?.some((v) => v != null)) found.push({ key, title, table, unit, scale, centre, about });
  };
  for (const [kind, table] of Object.entries(task.effects ?? {})) {
    add(
      `ablation:${kind}`,
      `Single ablation, ${kind.replaceAll("_", " ")}`,
      table,
      "%",
      "diverging",
      100,
      "Percent of the full model's logit difference that is left when this component alone is ablated, over the search prompts; below 100 % the model needs it.",
    );
  }
  add(
    "attribution",
    "Direct attribution",
    task.attribution,
    "logits",
    "diverging",
    0,
    "What the component writes along answer minus incorrect answer at the last position; positive: for the answer.",
  );
  for (const [way, value] of Object.entries(task.patching ?? {})) {
    add(
      `patching:${way}`,
      `Patching, ${way}`,
      value?.value ? value : { value },
      "share",
      "diverging",
      0,
      way === "denoising"
        ? "Clean activation into the corrupted run; share of the gap between corrupted and clean that comes back (0: none, 1: all)."
        : "Corrupted activation into the clean run, on the same scale (1: as clean, 0: as corrupted).",
    );
  }
  for (const [name, table] of Object.entries(
    task.ov?.value ? { [task.ov_name ?? "next"]: task.ov } : (task.ov ?? {}),
  )) {
    add(
      `ov:${name}`,
      `OV score: ${name}`,
      table,
      "share",
      "sequential",
      0,
      "Share of members for which the head, reading the member through its own norm (in place: at the answer position), writes the target member among the top tokens; next: the next member, copy: the member itself.",
    );
  }
  for (const [name, value] of Object.entries(model.detectors ?? {})) {
    add(
      `detector:${name}`,
      `Detector: ${name.replaceAll("_", " ")}`,
      value?.value ? value : { value },
      "score",
      "sequential",
      0,
      "Mean attention weight of that kind on repeated random tokens, 0 to 1.",
    );
  }
  for (const source of [task.scores, model.scores]) {
    for (const [name, table] of Object.entries(source ?? {})) {
      add(
        `score:${name}`,
        table?.title ?? name.replaceAll("_", " "),
        table,
        table?.unit ?? "",
        table?.centre == null ? "sequential" : "diverging",
        table?.centre ?? 0,
        table?.about ?? "",
      );
    }
  }
  for (const row of model.order?.successors?.rows.filter(({ target }) => target === NEXT) ?? []) {
    const title = `Successor score: ${classWords(model, row.class)}`;
    add(`successor:${row.class}`, title, row, "share", "sequential", 0, row.about);
  }
  add(
    "share",
    "Share of searches that keep it",
    { value: task.share },
    "share",
    "sequential",
    0,
    "Share of all searches (orders, resamples, seeds, wordings, corruptions) whose circuit holds the component.",
  );
  for (const [kind, value] of Object.entries(prompt?.ablated ?? {})) {
    add(
      `here:${kind}`,
      `On prompt ${prompt.prompt}: ablated, ${kind.replaceAll("_", " ")}`,
      { value },
      "logits",
      "diverging",
      prompt.clean,
      `Logit difference on this prompt with the component alone ablated; ${prompt.clean ?? "?"} without ablation.`,
    );
  }
  add(
    "here:attribution",
    `On prompt ${prompt?.prompt}: direct attribution`,
    { value: prompt?.attribution },
    "logits",
    "diverging",
    0,
    "As direct attribution, on this prompt alone.",
  );
  if (task.roleOf.size)
    found.push({
      key: "role",
      title: "Role",
      scale: "role",
      about: "The first label of each component's role; see the drawer for its evidence.",
    });
  if (task.class?.some(Boolean))
    found.push({
      key: "class",
      title: "Stability class",
      scale: "class",
      about: "Core: at least 90 % of the searches keep it; noise: under 10 %; contingent: between.",
    });
  if (model.main.length)
    found.push({
      key: "kin",
      title: "Shared by main tasks",
      scale: "kin",
      about: "Which main tasks' reported circuits hold the component.",
    });
  return found;
}
