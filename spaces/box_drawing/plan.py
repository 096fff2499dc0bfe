"""How a grid architecture's graph is drawn, as far as no length matters: layers, columns, lanes and ports.

Boxes stand in layers, one below the other, by their longest path from the image. Boxes that follow one another form a
chain in a column of their own, joined by straight arrows. An arrow that skips layers runs down a rail, which all skipping
arrows of its source share: below the end of a chain that is the column itself, elsewhere a lane beside it. Between two
layers lies a channel, where arrows change from column to column.
"""

from collections.abc import Sequence

Lane = tuple[int, int]  # column, and where beside it: 0 on its centre line, ±n for the n-th lane right or left of it


class Plan:
    """Boxes in topological order, of which box n reads ``sources[n]``; the first reads nothing, all reach the last."""

    def __init__(self, sources: Sequence[Sequence[int]]) -> None:
        self.sources = [tuple(read) for read in sources]
        self.readers: list[list[int]] = [[] for _ in sources]
        self.layer: list[int] = []
        for box, read in enumerate(self.sources):
            self.layer.append(1 + max((self.layer[source] for source in read), default=-1))
            for source in read:
                self.readers[source].append(box)
        # The last channel that an arrow from each box passes.
        self.last = [max((self.layer[r] for r in readers), default=1 + self.layer[-1]) - 1 for readers in self.readers]
        self.chains = self._chains()
        self.column = self._columns()
        self.rail = self._rails()

    def arrival(self, source: int, channel: int) -> Lane:
        """Where the arrows of ``source`` enter a channel from above."""
        return (self.column[source], 0) if channel == self.layer[source] else self.rail[source]

    def ports(self, box: int) -> list[int]:
        """Where the arrow from each source enters the box: left of its middle (−1), in it (0) or right of it (1).

        The middle is for an arrow that comes straight down; a single arrow from elsewhere may have it, too, unless
        another arrow comes down there towards a track of the channel above.
        """
        channel, home, read = self.layer[box] - 1, (self.column[box], 0), self.sources[box]
        arrivals = [self.arrival(source, channel) for source in read]
        if len(read) == 2 and home not in arrivals:
            return [-1, 1] if arrivals[0] <= arrivals[1] else [1, -1]
        if len(set(read)) < len(read):
            return [-1, 1]
        if len(read) == 1 and not any(self.arrival(net, channel) == home for net in self.crossing(channel)):
            return [0]
        return [(arrival > home) - (arrival < home) for arrival in arrivals]

    def crossing(self, channel: int) -> list[int]:
        """The boxes with an arrow through a channel."""
        return [box for box, readers in enumerate(self.readers) if readers and self._passes(box, channel)]

    def _passes(self, box: int, channel: int) -> bool:
        return self.layer[box] <= channel <= self.last[box]

    def _chains(self) -> list[list[int]]:
        """The longest path of all, then again and again the longest one that is left above the lowest box left."""
        free = set(range(len(self.sources)))
        chains = []
        while free:
            box: int | None = max(free, key=lambda box: (self.layer[box], box))
            chain: list[int] = []
            while box is not None:
                chain.insert(0, box)
                free.remove(box)
                above = (s for s in self.sources[box] if s in free and self.layer[s] == self.layer[box] - 1)
                box = next(above, None)
            chains.append(chain)
        return chains

    def _columns(self) -> list[int]:
        """A chain takes the column nearest to what it reads and feeds, but a new one only where that is much nearer."""
        column: dict[int, int] = {}
        taken: dict[int, list[tuple[int, int]]] = {0: []}
        for chain in self.chains:
            top, bottom = self.layer[chain[0]], self.last[chain[-1]]
            near = [column[box] for box in (*self.sources[chain[0]], *self.readers[chain[-1]]) if box in column]
            free = [
                place
                for place in range(min(taken) - 1, max(taken) + 2)
                if all(bottom < start or end < top for start, end in taken.get(place, []))
            ]
            distance = {place: sum(abs(place - other) for other in near) + (place not in taken) for place in free}
            best = min(free, key=lambda place: (distance[place], abs(place), -place)) if near else 0
            taken.setdefault(best, []).append((top, bottom))
            column |= dict.fromkeys(chain, best)
        return [column[box] for box in range(len(column))]

    def _rails(self) -> dict[int, Lane]:
        """The rail of every box with an arrow that skips layers; short rails come nearest to their column."""
        ends = {chain[-1] for chain in self.chains}
        skipping = [box for box, readers in enumerate(self.readers) if readers and self.last[box] > self.layer[box]]
        rails = {box: (self.column[box], 0) for box in skipping if box in ends}
        beside = (box for box in skipping if box not in ends)
        for box in sorted(beside, key=lambda box: (self.last[box] - self.layer[box], box)):
            far = [self.column[r] - self.column[box] for r in self.readers[box] if self.layer[r] > self.layer[box] + 1]
            sides = (1, -1) if sum(far) == 0 else (1,) if sum(far) > 0 else (-1,)
            numbers = range(1, len(self.sources))
            lanes = ((self.column[box], side * number) for number in numbers for side in sides)
            rails[box] = next(lane for lane in lanes if self._vacant(lane, box, rails))
        return rails

    def _vacant(self, lane: Lane, box: int, rails: dict[int, Lane]) -> bool:
        others = (other for other, its in rails.items() if its == lane)
        return all(self.last[box] < self.layer[other] or self.last[other] < self.layer[box] for other in others)
