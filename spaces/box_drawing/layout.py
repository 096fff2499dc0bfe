"""Where the boxes and arrows of a plan are, in inches.

The arrows of every source have a track of their own in each channel where they change columns, so that lines of two
sources never run along each other. Deep graphs are folded: bands of layers stand side by side, and arrows from one to
the next rise in the gutter between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spaces.box_drawing.plan import Plan

Point = tuple[float, float]
PAGE = (7.0, 9.0)  # inches of a page that text leaves: a drawing is folded if it fits there with less shrinking

LANE, GAP = 0.12, 0.16  # between lines side by side, between a line or box and the next column
TRACK, ABOVE, BELOW = 0.1, 0.11, 0.19  # between tracks, from boxes to the first track, from the last track to boxes
STRAIGHT = 0.22  # height of a channel without tracks
PORT = 0.14  # from a box's middle to where a second arrow enters


@dataclass(frozen=True)
class Pins:
    """Where an arrow meets a channel's upper and lower border, in inches from the left."""

    upper: frozenset[float]
    lower: frozenset[float]

    @property
    def all(self) -> frozenset[float]:
        return self.upper | self.lower

    def spans(self, x: float) -> bool:
        return min(self.all) <= x <= max(self.all)

    def overlaps(self, other: "Pins") -> bool:
        return min(self.all) < max(other.all) + LANE and min(other.all) < max(self.all) + LANE


def tracks(nets: Mapping[int, Pins]) -> dict[int, int]:
    """The track of every net that is no straight line, counted from above, with few crossings."""
    order: list[int] = []
    for net in (net for net, pins in nets.items() if len(pins.all) > 1):

        def crossings(place: int, pins: Pins = nets[net]) -> int:
            above, below = ([nets[other] for other in part] for part in (order[:place], order[place:]))
            return sum(_crossings(other, pins) for other in above) + sum(_crossings(pins, other) for other in below)

        order.insert(min(range(len(order) + 1), key=crossings), net)
    found: dict[int, int] = {}
    for net in order:
        found[net] = 1 + max((found[other] for other in found if nets[other].overlaps(nets[net])), default=-1)
    return found


def _crossings(upper: Pins, lower: Pins) -> int:
    """How often two nets cross if the first has the upper track."""
    return sum(map(upper.spans, lower.upper)) + sum(map(lower.spans, upper.lower))


class Layout:
    """The plan folded into ``bands``, of boxes ``box`` inches wide and ``heights`` high; y is counted downwards."""

    def __init__(self, plan: Plan, bands: int, box: float, heights: Sequence[float]) -> None:
        self.plan, self.box, self.heights = plan, box, heights
        self.layers = plan.layer[-1] + 1
        self.starts = self._folds(bands)
        self._place_columns()
        self._place_layers()

    @property
    def shrinking(self) -> float:
        """How many times too large the drawing is for a page."""
        return max(self.width / PAGE[0], self.height / PAGE[1], 1.0)

    def centre(self, box: int) -> Point:
        return self._home(box), self._middle[self.plan.layer[box]]

    def arrows(self, source: int) -> list[list[Point]]:
        """The corners of every arrow that leaves a box, in the order of its ``readers``; the last is the tip."""
        return [self._arrow(source, reader, port) for reader, port in self._reads(source)]

    def _reads(self, source: int) -> list[tuple[int, int]]:
        """Every reader of a source with the port at which it reads."""
        return [
            (reader, port)
            for reader in dict.fromkeys(self.plan.readers[source])
            for read, port in zip(self.plan.sources[reader], self.plan.ports(reader))
            if read == source
        ]

    def _arrow(self, source: int, reader: int, port: int) -> list[Point]:
        x, y = self.centre(source)
        points = [(x, y + self.heights[source] / 2)]
        for channel in range(self.plan.layer[source], self.plan.layer[reader]):
            before, after = self._ends(source, reader, port, channel)
            if channel in self._gutters:
                lane = self._gutters[channel][source]
                bottom, top = self._track(channel, source, False), self._track(channel, source, True)
                points += [(before, bottom), (lane, bottom), (lane, top), (after, top)]
            elif before != after:
                level = self._track(channel, source, False)
                points += [(before, level), (after, level)]
        return [*points, (after, self.centre(reader)[1] - self.heights[reader] / 2)]

    def _ends(self, source: int, reader: int, port: int, channel: int) -> tuple[float, float]:
        """Where an arrow enters and leaves a channel."""
        before = self._x(self._band(channel), self.plan.arrival(source, channel))
        if channel == self.plan.layer[reader] - 1:
            return before, self._home(reader) + port * PORT
        return before, self._x(self._band(channel + 1), self.plan.rail[source])

    # -- across ------------------------------------------------------------------------------------------------------

    def _folds(self, bands: int) -> list[int]:
        """The first layer of every band: near equal parts, where few arrows have to cross."""
        starts = [0]
        for band in range(1, bands):
            ideal = round(band * self.layers / bands)
            near = [layer for layer in (ideal, ideal - 1, ideal + 1) if starts[-1] < layer < self.layers]
            starts.append(min(near, key=lambda layer: len(self.plan.crossing(layer - 1))))
        return starts

    def _band(self, layer: int) -> int:
        return sum(start <= layer for start in self.starts) - 1

    def _x(self, band: int, lane: tuple[int, int]) -> float:
        column, beside = lane
        middle, half = self._columns[band][column]
        if beside == 0:
            return middle
        offset = half + GAP + (abs(beside) - 1) * LANE
        return middle + (offset if beside > 0 else -offset)

    def _home(self, box: int) -> float:
        return self._x(self._band(self.plan.layer[box]), (self.plan.column[box], 0))

    def _place_columns(self) -> None:
        """In every band, the middle of each column in use and half the width of its boxes; gutters between bands."""
        self._columns: list[dict[int, tuple[float, float]]] = []
        self._gutters: dict[int, dict[int, float]] = {}
        right = 0.0
        for band, start in enumerate(self.starts):
            if band:
                nets = self.plan.crossing(start - 1)
                order = sorted(nets, key=lambda net: self.plan.arrival(net, start - 1), reverse=True)
                self._gutters[start - 1] = {net: right + GAP + place * LANE for place, net in enumerate(order)}
                right += 2 * GAP + (len(order) - 1) * LANE
            end = (*self.starts, self.layers)[band + 1]
            self._columns.append({})
            for column, (half, lanes_left, lanes_right) in sorted(self._in_use(start, end).items()):
                gap = GAP if self._columns[-1] else 0.0
                middle = right + gap + lanes_left * LANE + (GAP - LANE if lanes_left else 0.0) + half
                self._columns[-1][column] = (middle, half)
                right = middle + half + lanes_right * LANE + (GAP - LANE if lanes_right else 0.0)
        self.width = right

    def _in_use(self, start: int, end: int) -> dict[int, tuple[float, int, int]]:
        """Columns with boxes or rails in these layers → half the width of the boxes, lanes left and right."""
        plan = self.plan
        boxes = {column for column, layer in zip(plan.column, plan.layer) if start <= layer < end}
        rails = [rail for net, rail in plan.rail.items() if plan.layer[net] < end - 1 and start <= plan.last[net]]
        used = {}
        for column in boxes | {column for column, _ in rails}:
            lanes = [beside for where, beside in rails if where == column]
            used[column] = (self.box / 2 if column in boxes else 0.0, -min([0, *lanes]), max([0, *lanes]))
        return used

    # -- down --------------------------------------------------------------------------------------------------------

    def _place_layers(self) -> None:
        """The middle of every layer, and the tracks of every channel with the height of the first."""
        self._middle: list[float] = []
        self._tracks: dict[tuple[int, bool], tuple[float, dict[int, int]]] = {}
        y = self.height = 0.0
        for layer in range(self.layers):
            if layer in self.starts and layer > 0:
                found = tracks(self._pins(layer - 1, True))
                self._tracks[layer - 1, True] = (0.0, found)
                y = max(found.values()) * TRACK + BELOW
            box = max(self.heights[box] for box, its in enumerate(self.plan.layer) if its == layer)
            self._middle.append(y + box / 2)
            y += box
            found = tracks(self._pins(layer, False))
            self._tracks[layer, False] = (y + ABOVE, found)
            self.height = max(self.height, y + (ABOVE + max(found.values()) * TRACK if found else 0.0))
            y += ABOVE + max(found.values()) * TRACK + BELOW if found else STRAIGHT

    def _track(self, channel: int, net: int, after_fold: bool) -> float:
        first, found = self._tracks[channel, after_fold]
        return first + found[net] * TRACK

    def _pins(self, channel: int, after_fold: bool) -> dict[int, Pins]:
        """The pins of every net in a channel; of one that is folded, of its part at a band's top or bottom."""
        nets = {}
        for net in self.plan.crossing(channel):
            reads = [(reader, port) for reader, port in self._reads(net) if self.plan.layer[reader] > channel]
            ends = [self._ends(net, *read, channel) for read in reads]
            upper, lower = (frozenset(side) for side in zip(*ends))
            if channel in self._gutters:
                lane = frozenset({self._gutters[channel][net]})
                upper, lower = (frozenset(), lower | lane) if after_fold else (upper | lane, frozenset())
            nets[net] = Pins(upper, lower)
        return nets


def arrange(sources: Iterable[Sequence[int]], box: float, heights: Sequence[float]) -> Layout:
    """The layout that a page takes with the least shrinking, in as few bands as that allows."""
    plan = Plan(list(sources))
    most = max(1, min(6, plan.layer[-1] // 3))  # a band of fewer than three layers would save no height
    layouts = (Layout(plan, bands, box, heights) for bands in range(1, most + 1))
    return min(layouts, key=lambda layout: layout.shrinking)
