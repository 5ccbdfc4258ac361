// The state of the page lives in location.hash, so that every view is a link. Keys: view, model, task, order, threshold,
// step, edges, inside, colour, head, prompt, by, metric, sort, select, compare, class, target, at,
// shape, layer, pcs, theme. What equals its default is left out.

const DEFAULTS = { view: "graph", colour: "sharing", sort: "model", by: "prompt" };

export function parse(hash) {
  const state = { ...DEFAULTS };
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) state[key] = value;
  return state;
}

export function write(state) {
  const text = Object.entries(state)
    .filter(([key, value]) => value != null && value !== "" && value !== DEFAULTS[key])
    .map(
      ([key, value]) =>
        `${key}=${encodeURIComponent(value).replaceAll("%3A", ":").replaceAll("%40", "@").replaceAll("%20", "+")}`,
    )
    .join("&");
  return `#${text}`;
}

export function makeState(changed) {
  let state = parse(location.hash);
  window.addEventListener("hashchange", () => {
    state = parse(location.hash);
    changed(state, {});
  });
  return {
    get: () => state,
    /** Null takes a key out. `step`: for sliders and keys, which should not fill the history. */
    set(patch, { step = false } = {}) {
      state = { ...state, ...patch };
      for (const key of Object.keys(state)) if (state[key] == null) state[key] = DEFAULTS[key];
      const hash = write(state);
      if (hash !== location.hash && !(hash === "#" && !location.hash))
        history[step ? "replaceState" : "pushState"](null, "", hash);
      changed(state, patch);
    },
  };
}
