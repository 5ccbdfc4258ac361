// Where the arrow keys lead from the chosen component or prompt.
import { headOf, idOf, isMlp, layerOf, nameOf } from "./data.js";
import { matrix } from "./matrix.js";
import { movedInOrder } from "./order.js";
import { headShown } from "./prompt.js";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** The change of the state that a key makes, or null. `column`: where a head stands in its row, if not at its number. */
export function moved(ctx, event, column) {
  const { model, state, selected, circuit, prompts, prompt } = ctx;
  const [down, across] = STEPS[event.key] ?? [0, 0];
  if (state.view === "prompt") return inPrompt(ctx, down, across, prompts, prompt);
  if (state.view === "order") return movedInOrder(ctx, event, [down, across]);
  if (state.view === "matrix" && state.sort === "rank") {
    const names = matrix.tables(ctx)[0]?.rows.map(([name]) => name) ?? [];
    const i = selected == null ? -1 : names.indexOf(nameOf(model, selected));
    const next = event.key === "Home" ? 0 : Math.max(0, Math.min(names.length - 1, i + (down || across)));
    return names.length ? { head: names[next] } : null;
  }
  if (selected == null) return { head: nameOf(model, circuit?.members[0] ?? 0) };
  const place = (id) => (isMlp(model, id) ? model.n_heads : (column?.(id) ?? headOf(model, id)));
  const layer = Math.max(0, Math.min(model.n_layers - 1, layerOf(model, selected) + down));
  const wanted =
    event.key === "Home"
      ? 0
      : event.key === "End"
        ? model.n_heads
        : Math.max(0, Math.min(model.n_heads, place(selected) + across));
  const next = model.ids.find((id) => layerOf(model, id) === layer && place(id) === wanted);
  if (next == null) return null;
  const patch = { head: nameOf(model, next) };
  if (state.view !== "matrix") return patch;
  const anchor = idOf(model, (state.select ?? "").split(":")[0]) ?? selected;
  return { ...patch, select: event.shiftKey ? `${nameOf(model, anchor)}:${patch.head}` : null };
}

/** Left and right: prompts; up and down: the heads whose attention the page holds. */
function inPrompt(ctx, down, across, prompts, prompt) {
  if (across) {
    const next = prompts[prompts.indexOf(prompt) + across];
    return next ? { prompt: next.prompt } : null;
  }
  const heads = prompt?.attention?.heads ?? [];
  const next = heads[heads.indexOf(headShown(ctx)) + down];
  return next == null ? null : { head: nameOf(ctx.model, next) };
}
