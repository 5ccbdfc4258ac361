"""Runs that differ from a recorded one at the last position alone: an edit there, and what the model then says.

Attention looks back only, so an edit at the last position of a prompt leaves all that was computed at earlier ones as
it is. A prompt is read once, its keys and values remembered, and each edited run computes one position from the edited
layer on: S times less than a whole pass. Architectures without an engine run whole passes through TransformerLens
hooks, to the same result.

Memory: keys and values of all prompts, 2 L N G S d_head numbers in the model's dtype (48 prompts of 25 tokens in
SmolLM2: 55 MB), and the logits of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from atlas.generate.decoding import Cache
from atlas.model.attention import Positions
from atlas.model.models import Hook, z_hook

if TYPE_CHECKING:
    from atlas.model.models import Model


def resid_hook(layer: int) -> str:
    """Name of the hook at the residual stream after a layer, [N, S, D]."""
    return f"blocks.{layer}.hook_resid_post"


@dataclass(frozen=True)
class Edit:
    """A change at the last position.

    ``added`` [D], or [N, D] with one row for each prompt, is added to the residual after ``layer``. ``z`` [N, L, H,
    d_head] takes the place of the outputs of ``heads`` [L, H], or [N, L, H], bool. Either may be left out.
    """

    layer: int = -1
    added: torch.Tensor | None = None
    z: torch.Tensor | None = None
    heads: torch.Tensor | None = None

    def take(self, rows: torch.Tensor) -> Edit:
        """The same for some of the prompts."""
        added = self.added[rows] if self.added is not None and self.added.dim() == 2 else self.added
        heads = self.heads[rows] if self.heads is not None and self.heads.dim() == 3 else self.heads
        return Edit(self.layer, added, None if self.z is None else self.z[rows], heads)

    @classmethod
    def together(cls, edits: Sequence[Edit], n: int) -> Edit:
        """The edits of n prompts, all after the same layer, as one of as many copies of these prompts."""
        (layer,) = {edit.layer for edit in edits}
        of = {name: [getattr(edit, name) for edit in edits] for name in ("added", "z", "heads")}
        dims = {"added": 2, "z": 4, "heads": 3}
        made = {
            name: None if values[0] is None else torch.cat([_each(x, n, dims[name]) for x in values])
            for name, values in of.items()
        }
        return cls(layer, **made)

    def resid(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """The residual [N, 1, D] after a layer, edited."""
        if self.added is None or layer != self.layer:
            return x
        added = self.added.to(x.device, x.dtype)
        return x + (added if added.dim() == 1 else added[:, None])

    def outputs(self, z: torch.Tensor, layer: int) -> torch.Tensor:
        """z [N, 1, H, d_head] of a layer, edited."""
        if self.z is None or self.heads is None or not self.heads[..., layer, :].any():
            return z
        swapped, heads = self.z[:, layer, None].to(z.device, z.dtype), self.heads[..., layer, :].to(z.device)
        return torch.where(heads[..., None] if heads.dim() == 1 else heads[:, None, :, None], swapped, z)

    @property
    def layers_swapped(self) -> list[int]:
        """Layers of which heads are swapped."""
        assert self.heads is not None
        found: list[int] = self.heads.view(-1, *self.heads.shape[-2:]).any(0).any(-1).nonzero()[:, 0].tolist()
        return found

    @property
    def first(self) -> int:
        """The first layer that is computed anew."""
        swapped = [] if self.heads is None else self.layers_swapped
        return min([*swapped, *([] if self.added is None else [self.layer + 1])], default=0)


@dataclass
class Group:
    """Prompts of one length, read: ``rows`` [n] their numbers; on the CPU ``resid`` [n, L, D] after each layer and
    ``z`` [n, L, H, d_head], both at the last position; ``logits`` [n, d_vocab]; on the device what each layer read
    there (``x``) and ``keys`` and ``values`` of every layer, where there is an engine."""

    rows: torch.Tensor
    tokens: torch.Tensor
    resid: torch.Tensor
    z: torch.Tensor
    logits: torch.Tensor
    x: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


class Recorded:
    """Prompts that a model has read, to be run again with edits at their last positions.

    tokens: N lists of ids, of any lengths. ``use_engine=False`` runs through hooks though there is an engine.
    """

    def __init__(self, model: Model, tokens: Sequence[Sequence[int]], use_engine: bool = True) -> None:
        self.model, self.n = model, len(tokens)
        self.weights = model.weights if use_engine else None
        lengths = [len(ids) for ids in tokens]
        self.groups: list[Group] = []
        with torch.no_grad():
            for length in sorted(set(lengths)):
                own = torch.tensor([i for i, n in enumerate(lengths) if n == length])
                for batch in model.batches(len(own)):
                    rows = own[batch]
                    ids = torch.tensor([list(tokens[i]) for i in rows.tolist()])
                    self.groups.append(self._read(rows, ids) if self.weights else self._read_by_hooks(rows, ids))

    def gathered(self, part: str) -> torch.Tensor:
        """[N, ...] of `resid`, `z` or `logits`, prompts in their own order, at least float32."""
        found = torch.cat([getattr(group, part) for group in self.groups])
        order = torch.cat([group.rows for group in self.groups])
        return found[order.argsort()]

    def each(self, edit: Edit, read: Callable[[torch.Tensor, torch.Tensor], Any]) -> Any:
        """[N, ...] what ``read`` makes of the edited logits [n, d_vocab] of prompts with these numbers [n], in order.

        Logits of no more than one batch are held at a time.
        """
        found = []
        with torch.no_grad():
            for group in self.groups:
                of_group = edit.take(group.rows)
                run = self._again if self.weights else self._again_by_hooks
                found.append(read(run(group, of_group), group.rows))
        order = torch.cat([group.rows for group in self.groups]).argsort()
        return torch.cat(found)[order]

    def each_of(
        self, edits: Sequence[Edit], read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """[E, N, ...] the same of several edits after one layer; as many as fit into a batch are run together, since a
        run of few prompts takes its time to read the weights."""
        if not self.weights:
            return torch.stack([self.each(edit, read) for edit in edits])
        found = []
        with torch.no_grad():
            for group in self.groups:
                n, of_group = len(group.rows), []
                at_once = max(1, self.model.batch_size // n)
                for start in range(0, len(edits), at_once):
                    some = [edit.take(group.rows) for edit in edits[start : start + at_once]]
                    logits = self._again(group, Edit.together(some, n), len(some))
                    of_group.append(read(logits, group.rows.repeat(len(some))).unflatten(0, (len(some), n)))
                found.append(torch.cat(of_group))
        order = torch.cat([group.rows for group in self.groups]).argsort()
        return torch.cat(found, 1)[:, order]

    # ---- with the engine -------------------------------------------------------------------------------------
    def _read(self, rows: torch.Tensor, ids: torch.Tensor) -> Group:
        assert self.weights is not None
        resid, outputs, entered, keys, values = [], [], [], [], []
        x = self.weights.embed(ids.to(self.model.device))
        for block in self.weights.blocks:
            entered.append(x[:, -1:].clone())  # a copy, so that the other positions need not be kept
            normed = block.norm1(x)
            k, v = block.keys_values(normed)
            z = block.attend(block.queries(normed), k, v)
            x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
            keys.append(k)
            values.append(v)
            outputs.append(_kept(z[:, -1]))
            resid.append(_kept(x[:, -1]))
        logits = _kept(self.weights.unembed(x[:, -1]))
        return Group(rows, ids, torch.stack(resid, 1), torch.stack(outputs, 1), logits, entered, keys, values)

    def _again(self, group: Group, edit: Edit, copies: int = 1) -> torch.Tensor:
        """Edited logits [n, d_vocab] of a group, at least float32; of so many ``copies`` of it, one after another."""
        assert self.weights is not None
        s, n_layers = group.tokens.shape[1], len(self.weights.blocks)
        first = edit.first
        x = group.x[first] if first < n_layers else group.resid[:, -1:].to(self.model.device, self.model.dtype)
        x = x.repeat(copies, 1, 1)
        if edit.added is not None and edit.layer == first - 1:
            x = edit.resid(x, edit.layer)
        at = Positions.span(s - 1, s, x.device)
        for layer in range(first, n_layers):
            block = self.weights.blocks[layer]
            normed = block.norm1(x)
            new = block.keys_values(normed, at)
            k, v = (
                torch.cat((old[:, :, :-1].repeat(copies, 1, 1, 1), own), 2)
                for old, own in zip((group.keys[layer], group.values[layer]), new, strict=True)
            )
            z = edit.outputs(block.attend(block.queries(normed, at), k, v, at), layer)
            x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
            x = edit.resid(x, layer)
        return _kept(self.weights.unembed(x[:, -1]))

    # ---- through hooks ---------------------------------------------------------------------------------------
    def _read_by_hooks(self, rows: torch.Tensor, ids: torch.Tensor) -> Group:
        resid: dict[int, torch.Tensor] = {}
        outputs: dict[int, torch.Tensor] = {}

        def keeper(found: dict[int, torch.Tensor], layer: int) -> Callable[..., None]:
            def hook(x: torch.Tensor, hook: object) -> None:
                found[layer] = _kept(x[:, -1])

            return hook

        layers = range(self.model.n_layers)
        hooks = [
            (name(layer), keeper(of, layer))
            for name, of in ((resid_hook, resid), (z_hook, outputs))
            for layer in layers
        ]
        logits = _kept(self.model.run(ids, hooks, on_bridge=True))
        of_resid, of_z = (torch.stack([of[layer] for layer in layers], 1) for of in (resid, outputs))
        return Group(rows, ids, of_resid, of_z, logits)

    def _again_by_hooks(self, group: Group, edit: Edit) -> torch.Tensor:
        return _kept(self.model.run(group.tokens, hooks_of(edit, group.tokens.shape[1] - 1), on_bridge=True))


def hooks_of(edit: Edit, start: int) -> list[Hook]:
    """An edit as hooks, at every position from ``start`` on."""

    def changed(change: Callable[[torch.Tensor, int], torch.Tensor], layer: int) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            return torch.cat((x[:, :start], change(x[:, start:], layer)), 1)

        return hook

    hooks = [] if edit.added is None else [(resid_hook(edit.layer), changed(edit.resid, edit.layer))]
    swapped = [] if edit.heads is None else edit.layers_swapped
    return hooks + [(z_hook(layer), changed(edit.outputs, layer)) for layer in swapped]


def _each(x: torch.Tensor, n: int, dims: int) -> torch.Tensor:
    """x of ``dims`` axes, the first of n prompts; repeated for each where it is the same for all."""
    return x if x.dim() == dims else x.expand(n, *x.shape)


def _kept(x: torch.Tensor) -> torch.Tensor:
    """On the CPU, at least float32, and no part of a larger tensor."""
    return x.to("cpu", torch.promote_types(x.dtype, torch.float32)).clone()


# ---- what is written -----------------------------------------------------------------------------------------
def continued(
    model: Model, tokens: torch.Tensor, steps: int, edit: Edit, end: int | None = None, use_engine: bool = True
) -> torch.Tensor:
    """The ``steps`` most likely next tokens, one after another, [n, steps], of prompts [n, S] of one length.

    What ``edit`` adds is added at every position from which a token is read: the last one of the prompt, and those of
    all that is written. After the token ``end`` a row is filled with it.
    """
    weights, s = model.weights if use_engine else None, tokens.shape[1]
    text = unread = tokens.to(model.device)
    cache, ended = Cache(s + steps), torch.zeros(len(tokens), dtype=torch.bool, device=text.device)
    with torch.no_grad():
        for _ in range(steps):
            if weights is None:
                logits = model.run(text, hooks_of(edit, s - 1), on_bridge=True)
            else:
                start, stop = cache.length, cache.length + unread.shape[1]
                at, x = Positions.span(start, stop, text.device) if start else None, weights.embed(unread, start)
                for layer, block in enumerate(weights.blocks):
                    normed = block.norm1(x)
                    k, v = cache.extend(layer, *block.keys_values(normed, at))
                    z = block.attend(block.queries(normed, at), k, v, at)
                    x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
                    x = torch.cat((x[:, :-1], edit.resid(x[:, -1:], layer)), 1)
                cache.length = stop
                logits = weights.unembed(x[:, -1])
            unread = logits.argmax(-1, keepdim=True)
            if end is not None:
                unread[ended] = end
                ended |= unread[:, 0] == end
            text = torch.cat((text, unread), 1)
    return text[:, s:].cpu()
