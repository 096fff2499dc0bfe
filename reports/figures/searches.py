"""Searches on a table: regret against what was spent, and which methods' ranks can be told apart."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from reports.figures import style
from reports.figures.picture import Picture
from reports.searches import Searched, amount_unit, amount_words

PANEL = 2.4  # inches, height of the axes
ROW = 0.2  # of a method in the diagram of ranks


def pictures(found: Searched) -> Iterator[Picture]:
    """The anytime regret, and the ranks where there are any."""
    yield _regret(found)
    if found.ranking.critical_difference is not None:
        yield _ranks(found)


@style.styled
def _regret(found: Searched) -> Picture:
    looks = style.looks(found.curves)
    names = style.labels(found.curves)
    legend = style.Legend([style.line_key(names[m], looks[m]) for m in found.curves], style.COLUMN + 0.6)
    frame = style.BOTTOM + PANEL + 0.1
    width = style.COLUMN + 0.7
    figure = Figure((width, frame + legend.height), facecolor="white")
    legend.draw(figure, 0.1, frame + legend.height)
    axes = style.panel(figure, style.LEFT, style.BOTTOM, width - style.LEFT - style.RIGHT, PANEL)
    _, size = amount_unit(found)
    for method, curve in found.curves.items():
        at, look = curve.amounts / size, looks[method]
        low, mean, high = (1000 * part for part in (curve.low, curve.mean, curve.high))
        axes.fill_between(at, low, high, step="post", color=look.colour, alpha=0.16, linewidth=0, gid="band")
        axes.plot(
            at, mean, **look.line, drawstyle="steps-post", markersize=4, markevery=style.every(len(at)), gid="mean"
        )
    axes.set_xlim(0, max(float(curve.amounts[-1]) for curve in found.curves.values()) / size)
    lowest = min((float(part) for curve in found.curves.values() for part in curve.mean if part > 0), default=1e-4)
    axes.set(yscale="log", ylim=(500 * lowest, 1500 * found.hypervolume))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    style.label(axes, amount_words(found), "regret × 1000")
    style.grid(axes)
    seeds = {each.seeds for each in found.ranking.standings}
    caption = (
        f"{found.title}, under a budget of {found.budget}: mean regret to the true front over "
        f"{' to '.join(str(count) for count in sorted({min(seeds), max(seeds)}))} seeds, and its 95 % interval, against the "
        f"{found.spent_in} of search and judging. Before the first proposal it is {1000 * found.hypervolume:.0f}."
    )
    return Picture(f"{found.name}-regret", f"Regret against {found.spent_in}", caption, figure)


@style.styled
def _ranks(found: Searched) -> Picture:
    """The critical-difference diagram of Demšar (JMLR 2006): bars join methods that cannot be told apart."""
    ranking = found.ranking
    ranks = sorted((each.rank, each.method) for each in ranking.standings if each.rank is not None)
    difference = ranking.critical_difference or 0.0
    groups = joined([rank for rank, _ in ranks], difference)
    half = (len(ranks) + 1) // 2
    axis = 0.3 + half * ROW + 0.13 * len(groups) + 0.1
    width, side = style.COLUMN + 1.6, 1.45
    figure = Figure((width, axis + 0.55), facecolor="white")
    axes = style.panel(figure, side, axis, width - 2 * side, 0.001)
    axes.set(xlim=(1, len(ranks)), yticks=[], xticks=range(1, len(ranks) + 1))
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.spines["top"].set_visible(True)
    names = style.labels([method for _, method in ranks], 22)
    place = _Places(figure, side, width - 2 * side, len(ranks))
    place.line([(1, axis + 0.38), (1 + difference, axis + 0.38)], 1.5)
    place.text(1 + difference, axis + 0.38, f"  critical difference {difference:.2f}", "left")
    for at, (low, high) in enumerate(groups):
        y = axis - 0.1 - 0.13 * at
        place.line([(ranks[low][0] - 0.03, y), (ranks[high][0] + 0.03, y)], 3.0, "group")
    for at, (rank, method) in enumerate(ranks):
        left = at < half
        level = axis - 0.2 - 0.13 * len(groups) - ROW * (at if left else len(ranks) - 1 - at)
        end = 1 - 0.02 * len(ranks) if left else len(ranks) + 0.02 * len(ranks)
        place.line([(rank, axis), (rank, level), (end, level)], 0.8)
        text = f"{names[method]} {rank:.2f} " if left else f" {rank:.2f} {names[method]}"
        place.text(end, level, text, "right" if left else "left")
    caption = (
        f"Mean ranks by regret over the {ranking.shared_seeds} seeds that all methods have, 1 is best. A bar joins methods "
        f"whose ranks differ by less than the critical difference of {difference:.2f} (Nemenyi's test, 5 %)."
    )
    return Picture(f"{found.name}-ranks", "Mean ranks and their critical difference", caption, figure)


def joined(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """First and last of every largest run of ranks, in order, that lie within the critical difference; of two at least."""
    groups: list[tuple[int, int]] = []
    for low in range(len(ranks)):
        high = max(at for at in range(low, len(ranks)) if ranks[at] - ranks[low] < difference or at == low)
        if high > low and (not groups or high > groups[-1][1]):
            groups.append((low, high))
    return groups


class _Places:
    """Draws at a rank across and at inches up."""

    def __init__(self, figure: Figure, left: float, width: float, most: int) -> None:
        self.figure, self.left, self.unit = figure, left, width / max(1, most - 1)

    def _across(self, rank: float) -> float:
        return self.left + (rank - 1) * self.unit

    def line(self, points: Sequence[tuple[float, float]], width: float, gid: str = "") -> None:
        x, y = zip(*((self._across(rank), up) for rank, up in points))
        style.draw_line(self.figure, x, y, width, gid)

    def text(self, rank: float, up: float, text: str, align: str) -> None:
        transform = self.figure.dpi_scale_trans
        self.figure.text(self._across(rank), up, text, size=style.SMALL, va="center", ha=align, transform=transform)
