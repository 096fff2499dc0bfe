"""One form for all drawings of the same graph.

Two genotypes describe the same network exactly when their active graphs are isomorphic: equal up to the order of nodes
and of the inputs that a node adds or concatenates. Colours are refined until neighbours tell no more nodes apart
(Weisfeiler & Leman, 1968); nodes that still look alike are told apart one by one, and the smallest outcome wins (McKay,
Congressus Numerantium 30, 1981).
"""

from collections.abc import Iterator, Sequence
from typing import Any

Colours = tuple[int, ...]  # of every node; equal graphs get equal colours


def canonical_order(labels: Sequence[str], sources: Sequence[Sequence[int]]) -> list[int]:
    """The nodes in an order that depends on the graph alone, sources before their readers.

    Node n is labelled ``labels[n]`` and reads ``sources[n]``: without order, possibly one source twice, no circles.
    Relabelled graphs whose nodes are listed in this order are equal exactly when the graphs are isomorphic.
    """
    colours = _Graph(labels, sources).canonical_colours()
    order: list[int] = []
    waiting = set(range(len(labels)))
    while waiting:
        ready = (node for node in waiting if not waiting & set(sources[node]))
        order.append(min(ready, key=lambda node: colours[node]))
        waiting.remove(order[-1])
    return order


class _Graph:
    def __init__(self, labels: Sequence[str], sources: Sequence[Sequence[int]]) -> None:
        self.labels, self.sources = labels, sources
        self.readers: list[list[int]] = [[] for _ in labels]
        for node, read in enumerate(sources):
            for source in read:
                self.readers[source].append(node)

    def canonical_colours(self) -> Colours:
        """A colour of its own for every node."""
        ranks = {label: rank for rank, label in enumerate(sorted(set(self.labels)))}
        return self._smallest(self._refine(tuple(ranks[label] for label in self.labels)))

    def _refine(self, colours: Colours) -> Colours:
        """Split colours by those of the sources and readers, as long as that tells nodes apart."""
        while True:
            views = [
                (colour, *(tuple(sorted(colours[n] for n in side[node])) for side in (self.sources, self.readers)))
                for node, colour in enumerate(colours)
            ]
            ranks = {view: rank for rank, view in enumerate(sorted(set(views)))}
            refined = tuple(ranks[view] for view in views)
            if len(ranks) == len(set(colours)):
                return refined
            colours = refined

    def _split(self, colours: Colours) -> Iterator[Colours]:
        """The first colour that several nodes share, given to each of them alone in turn; nothing if all differ."""
        shared = next((c for c in sorted(set(colours)) if colours.count(c) > 1), None)
        for node, colour in enumerate(colours):
            if colour == shared:
                yield self._refine(tuple(2 * c - (other == node) for other, c in enumerate(colours)))

    def _smallest(self, colours: Colours) -> Colours:
        """Of all ways to tell alike nodes apart, the one with the smallest form.

        Two ways whose first outcomes are equal are mirror images of each other: one of them is enough.
        """
        seen: list[tuple[Any, ...]] = []
        best = None
        for way in self._split(colours):
            first = self._form(self._any_outcome(way))
            if first in seen:
                continue
            seen.append(first)
            outcome = self._smallest(way)
            if best is None or self._form(outcome) < self._form(best):
                best = outcome
        return colours if best is None else best

    def _any_outcome(self, colours: Colours) -> Colours:
        while way := next(self._split(colours), None):
            colours = way
        return colours

    def _form(self, colours: Colours) -> tuple[object, ...]:
        """What the graph looks like in these colours, all different."""
        rows = ((c, self.labels[n], sorted(colours[s] for s in self.sources[n])) for n, c in enumerate(colours))
        return tuple(sorted((c, label, tuple(read)) for c, label, read in rows))
