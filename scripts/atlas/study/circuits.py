"""A circuit as a notebook shows it: sets of components that can be named, compared and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from atlas.core import components
from atlas.core.components import Component
from atlas.report import wording
from atlas.study import html

CELL, GAP = 12, 3  # pixels of a component, and between two


@dataclass(frozen=True)
class Circuit:
    """Components of a model of ``n_layers`` layers with ``n_heads`` heads each; ``facts``: sentences about it.

    ``a & b``, ``a | b`` and ``a - b`` are circuits too; ``"3.1" in circuit`` asks by name; iterating gives names, by
    layer, heads before the MLP. Pass it to `Task.ablate` or `Task.keep`.
    """

    members: frozenset[Component]
    title: str
    n_layers: int
    n_heads: int
    facts: tuple[str, ...] = ()

    @property
    def heads(self) -> list[str]:
        return [str(c) for c in components.heads(self.members)]

    @property
    def mlps(self) -> list[str]:
        return [str(c) for c in components.mlps(self.members)]

    @property
    def size(self) -> str:
        """`11 heads and 6 of 6 MLPs`."""
        return wording.heads_and_mlps(len(self.heads), len(self.mlps), self.n_layers)

    @property
    def listed(self) -> str:
        """Its size and names."""
        return f"{self.size}{': ' if self.members else ''}{', '.join([*self.heads, *self.mlps])}"

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(map(str, self.members), key=wording.place))

    def __contains__(self, name: object) -> bool:
        return str(name) in set(map(str, self.members))

    def __and__(self, other: Circuit) -> Circuit:
        return self._made(other, "and", self.members & other.members)

    def __or__(self, other: Circuit) -> Circuit:
        return self._made(other, "or", self.members | other.members)

    def __sub__(self, other: Circuit) -> Circuit:
        return self._made(other, "without", self.members - other.members)

    def _made(self, other: Circuit, how: str, members: frozenset[Component]) -> Circuit:
        return replace(self, members=members, title=f"{self.title}, {how} {other.title}", facts=())

    def __repr__(self) -> str:
        return f"{self.title}: {self.listed}"

    def _repr_html_(self) -> str:
        return html.block(self.title, [self.listed, *self.facts], self.picture())

    def picture(self) -> Markup:
        """SVG: a row for each layer, the first on top; its heads, and apart from them its MLP; members filled."""
        step = CELL + GAP
        left, right = 34, 34 + step * self.n_heads + 2 * GAP  # of the heads, and of the MLPs
        width, height = right + 2 * step, step * (self.n_layers + 1)
        title = f"{self.title}: {self.listed}"
        parts = [Markup('<svg role="img" viewBox="0 0 {} {}" width="{}" height="{}">').format(*[width, height] * 2)]
        parts.append(Markup("<title>{}</title>").format(title))
        for layer in range(self.n_layers):
            y = step * layer
            parts.append(Markup(LABEL).format(x=26, y=y + CELL - 2, anchor="end", text=layer))
            for head in [*range(self.n_heads), components.MLP]:
                component = Component(layer, head)
                x = right if component.is_mlp else left + step * head
                filled = "currentColor" if component in self.members else "none"
                parts.append(Markup(NODE).format(x=x, y=y, size=CELL, fill=filled, name=component))
        for x, text in ((left, "heads"), (right, "MLP")):
            parts.append(Markup(LABEL).format(x=x, y=height - GAP, anchor="start", text=text))
        return Markup("").join([*parts, Markup("</svg>")])


LABEL = '<text x="{x}" y="{y}" font-size="10" fill="currentColor" text-anchor="{anchor}">{text}</text>'
NODE = '<rect x="{x}" y="{y}" width="{size}" height="{size}" rx="2" fill="{fill}" stroke="currentColor"'
NODE += ' stroke-width="0.6" stroke-opacity="0.5"><title>{name}</title></rect>'


def names_of(given: Iterable[Any]) -> list[str]:
    """The names of components that are given one by one, as names, as components or as circuits or lists of them."""
    found: list[str] = []
    for item in given:
        single = isinstance(item, (str, Component))
        found += [str(item)] if single else [str(c) for c in item]
    return found
