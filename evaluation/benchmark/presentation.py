"""What a table holds, for people."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from scipy.special import logit
from scipy.stats import kendalltau

from evaluation.benchmark.header import Table as BenchmarkTable
from evaluation.benchmark.header import embedded
from evaluation.benchmark.ranking import PARTS, granted_by, rank
from evaluation.benchmark.regret import Landscape
from evaluation.benchmark.surrogate import SurrogateTable
from evaluation.benchmark.table import BenchTable
from evaluation.benchmark.trajectories import TrajectoryFile
from evaluation.runs import units
from evaluation.settings.config import Budget
from spaces.cli.numbers import three
from spaces.cli.tables import Column, Fitted
from spaces.costs import COSTS
from spaces.errors import InputError
from spaces.files.untrusted_text import shortened
from spaces.space import Architecture


def info(table: BenchmarkTable) -> RenderableType:
    """Facts: size, noise, front, provenance."""
    assert isinstance(table, BenchTable | SurrogateTable)
    facts = complete_facts(table) if isinstance(table, BenchTable) else predicted_facts(table)
    shown = Table(box=None, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, fact in facts.items():
        shown.add_row(name, fact)
    return shown


def complete_facts(table: BenchTable) -> dict[str, str]:
    """Of a table of networks that were all trained."""
    header, landscape = table.header, Landscape.of(table, "horowitz45")
    errors, front = table.mean_test[:, -1], list(landscape.front)
    spread = f"; one training differs from another by {table.noise:.2%} (sd)" if table.seeds > 1 else ""
    tau = kendalltau(table.mean_validation[:, -1], errors).statistic
    unit, size = units.suited(COSTS["horowitz45"].unit, float(landscape.costs.min()))
    cheapest, highest = three(landscape.costs.min() / size), three(landscape.costs.max() / size)
    return {
        "networks": f"{len(table)}, each trained {times(table.seeds)} for {table.epochs} epochs",
        "space": f"{header.plan.space}, {', '.join(header.plan.multipliers)}",
        "data": header.dataset_origin,
        "images": f"{header.train_images:,} train, {header.validation_images:,} validate, {header.test_images:,} test",
        "test error": f"{errors.min():.1%} to {errors.max():.1%}{spread}",
        "cost": f"{cheapest} to {highest} {unit} per inference (horowitz45)",
        "front": (
            f"{len(front)} networks, {errors[front].max() - errors[front].min():.1%} of error, a factor of "
            f"{landscape.costs[front].max() / landscape.costs[front].min():.1f} in cost"
        ),
        "validation and test": f"rank networks alike: Kendall's τ {tau:.2f}",
        "trained": f"{table.seconds[:, :, -1].sum() / 3600:.2f} h on {header.device}",
        **_provenance(table),
    }


def predicted_facts(table: SurrogateTable) -> dict[str, str]:
    """Of a surrogate: what is known of its sample, and how well it predicts. Predicts no network beyond that."""
    header, trained = table.header, table.arrays["test"][:, -1] / table.header.test_images
    return {
        "networks": f"{len(table):,}, of which {len(table.sample)} were trained for {table.epochs} epochs",
        "predictions": table.reliability,
        "space": f"{header.plan.space}, {', '.join(header.plan.multipliers)}",
        "data": header.dataset_origin,
        "images": f"{header.train_images:,} train, {header.validation_images:,} validate, {header.test_images:,} test",
        "test error": (
            f"{trained.min():.1%} to {trained.max():.1%} in the sample; one training differs from another by "
            f"{table.noise:.2%} (sd), {_noise_at(table, 0.2):.2%} at an error of 20 %, {_noise_at(table, 0.4):.2%} at 40 %"
        ),
        "trained": f"{table.arrays['seconds'][:, -1].sum() / 3600:.2f} h on {header.device}",
        **_provenance(table),
    }


def _noise_at(table: SurrogateTable, error: float) -> float:
    return float(table.model.scale(logit(error)))


def _provenance(table: BenchmarkTable) -> dict[str, str]:
    header = table.header
    return {
        "failures": str(len(header.failures)),
        "made by": header.command,
        "versions": ", ".join(f"{name} {version}" for name, version in header.versions.items()),
    }


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def front(table: BenchmarkTable, cost: str) -> RenderableType:
    """The true front, most accurate first, or the predicted one."""
    landscape = Landscape.of(table, cost)
    unit, size = units.suited(COSTS[cost].unit, float(landscape.costs[list(landscape.front)].max()))
    figures = [Column("test\nerror, %"), Column(f"cost\n{unit}")]
    shown = Fitted("", [*figures, Column("network: edges\ninto each node", text=True)])
    for at in landscape.front:
        error, price = 100 * landscape.errors[at], landscape.costs[at] / size
        shown.add(f"{error:.2f}", three(price), table.architecture(at).short())
    hypervolume = f"hypervolume {landscape.hypervolume:.4f} of (1, 1), by cost / that of {landscape.reference.short()}"
    if not table.reliability:
        return Group(shown, hypervolume)
    return Group(shown, hypervolume, f"The best of all {len(table):,} networks: {table.reliability}.")


def entry(table: BenchmarkTable, architecture: Architecture, cost: str) -> RenderableType:
    """Curves of one network."""
    assert isinstance(table, BenchTable | SurrogateTable)
    return trained(table, architecture, cost) if isinstance(table, BenchTable) else predicted(table, architecture, cost)


def predicted(table: SurrogateTable, architecture: Architecture, cost: str) -> RenderableType:
    """Curves of one network, as a surrogate has them."""
    price = COSTS[cost].network(table.make_space().costs(architecture, table.shape), "approximate").total
    unit, size = units.suited(COSTS[cost].unit, price)
    shown = Fitted("", [Column("epoch"), Column("test"), Column("validation", 1), Column("seconds", 2)])
    for epoch in range(1, table.epochs + 1):
        found = table.query(architecture, epoch)
        errors = (100 * found.test_error, 100 * found.validation_error)
        shown.add(str(epoch), *(f"{value:.2f}" for value in (*errors, found.seconds)))
    noise = _noise_at(table, table.query(architecture).test_error)
    return Group(
        architecture.short(),
        f"{three(price / size)} {unit} per inference; one training differs from another by {100 * noise:.2f} points (sd); "
        f"on exact multipliers {100 * table.reference_test_error(architecture, 'int8'):.2f} %",
        f"Errors in %, {table.reliability}:",
        shown,
    )


def trained(table: BenchTable, architecture: Architecture, cost: str) -> RenderableType:
    """Curves of one network, as it was trained."""
    at, landscape = table.at(architecture), Landscape.of(table, cost)
    unit, size = units.suited(COSTS[cost].unit, float(landscape.costs[at]))
    each_training = [Column(f"#{number}", 3 + number) for number in range(table.seeds)]
    means = [Column("mean"), Column("validation", 1), Column("seconds", 2)]
    shown = Fitted("", [Column("epoch"), *each_training, *means])
    for epoch in range(table.epochs):
        each = [f"{100 * error:.2f}" for error in table.test[at, :, epoch]]
        of_all = (
            100 * table.mean_test[at, epoch],
            100 * table.mean_validation[at, epoch],
            table.mean_seconds[at, epoch],
        )
        shown.add(str(epoch + 1), *each, *(f"{mean:.2f}" for mean in of_all))
    references = {name: table.reference_test_error(architecture, name) for name in ("fp32", "int8")}
    told = ", ".join(f"{name} {100 * error:.2f} %" for name, error in references.items())
    return Group(
        architecture.short(),
        f"{three(landscape.costs[at] / size)} {unit} per inference; test error of the same topology in {told}",
        "Test error in % of every training and their mean, validation error, seconds of one thread:",
        shown,
    )


def ranks(file: TrajectoryFile) -> RenderableType:
    """The standings of a comparison. Raises InputError where it holds no search, or is of no table that there is."""
    if not file.found:
        raise InputError(f"{file.path} holds no search; table compare adds some")
    table, budget = table_of(file), Budget.parse(file.common["budget"])
    ranking = rank(file.found, Landscape.of(table, file.common["cost"]), budget)
    parts = [Column(f"{part:.0%}", 0 if part == PARTS[-1] else 3) for part in PARTS]
    figures = [Column("seeds", 2), *parts, Column("±"), Column("rank", 1), Column("spent", 4)]
    shown = Fitted("", [Column("method", left=True), *figures])
    granted = granted_by(budget)
    for each in ranking.standings:
        shown.add(
            each.method + (" *" if each.control else ""),
            str(each.seeds),
            *(f"{1000 * regret:.1f}" for regret in each.regrets),
            f"{500 * (each.interval[1] - each.interval[0]):.1f}",
            "–" if each.rank is None else f"{each.rank:.2f}",
            "–" if not granted else f"{each.spent / granted:.0%}{' ✗' if each.overrun else ''}",
        )
    notes = [
        "Regret × 1000 (hypervolume of the true front minus that of the proposals by their true errors) after parts of the "
        f"budget of {file.common['budget']}, the judging of proposals included; ±: half of the 95 % interval of its mean at "
        "the end. *: a control.",
    ]
    if ranking.critical_difference is not None:
        notes.append(
            f"Mean ranks over the {ranking.shared_seeds} seeds that all have; they differ from "
            f"{ranking.critical_difference:.2f} on (Nemenyi, 5 %)."
        )
    if ranking.friedman_p is not None:
        notes.append(f"That all are alike: p = {ranking.friedman_p:.2g} (Friedman).")
    if table.reliability:
        notes.append(f"All errors are {table.reliability}.")
    return Group(Text(ranking.sentence, style="bold"), shown, " ".join(notes))


def table_of(file: TrajectoryFile) -> BenchmarkTable:
    """The table on which the searches of a comparison went. Raises InputError where none in the package fits."""
    for name in sorted(embedded()):
        table = BenchTable.load(name, doubtful=True)
        plan, kept = table.header.plan, file.common
        if (plan.space, plan.dataset, table.header.tables) == (kept["space"], kept["dataset"], kept["tables"]):
            return table
    raise InputError(f"{file.path} is of a table that this version of the package does not have")


def named(table: BenchmarkTable, text: str) -> Architecture:
    """The network of a file, or whose key begins so. Raises InputError where there is none, or more than one."""
    from evaluation.runs.architecture_files import resolve

    listed = (
        table.architectures
        if isinstance(table, BenchTable)
        else table.sample
        if isinstance(table, SurrogateTable)
        else []
    )
    found = [each for each in listed if each.key.startswith(text.lower())] if len(text) >= 4 else []
    if len(found) > 1:
        raise InputError(f"{len(found)} networks have a key that begins with {shortened(text)}; write more of it")
    return found[0] if found else resolve(text).architecture
