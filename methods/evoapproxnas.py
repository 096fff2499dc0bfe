"""EvoApproxNAS: multi-objective evolution of networks together with their approximate multipliers.

Pinos, Mrazek, Sekanina, EuroGP 2021 (arXiv 2101.11883) and Genetic Programming and Evolvable Machines 23(3), 2022: (μ + λ)
evolution with NSGA-II (Deb et al., IEEE TEC 6(2), 2002) of Cartesian genetic programs. Validation error,
cost and parameters are minimised:

    P ← μ random genotypes, trained and judged on validation
    repeat: λ children, each a mutant of the winner of a tournament in P, trained from its parent's weights
            P ← the μ best of P and the children, by front and crowding distance

In a steady state there are no generations: so many children are under way, and as the result of the oldest is there, it
meets P alone, and a new child is made.

Its native space is the grid; any space that offers ``sample`` and ``mutate`` will do. The papers' settings could not be read in
full: those below are ours, and the grid's size is that of CGP-CNN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from methods.fronts import representatives, spread_over_cost
from methods.method import Evaluation, Problem, StepReport
from methods.nsga2 import Individual, ParetoArchive, first_front, measure_crowding, objectives, survivors, tournament
from spaces.errors import InputError
from spaces.files.schema import typed
from spaces.space import Architecture

_ATTEMPTS = 20  # mutations in search of a network that was not evaluated yet
_IDLE_GENERATIONS = 10  # without such a network, after which the space counts as exhausted


@dataclass(frozen=True)
class EvoApproxNasConfig:
    """Settings of EvoApproxNAS; all are ours."""

    population: int = 24
    """μ: individuals that survive a generation."""
    offspring: int = 24
    """λ: children per generation."""
    generations: int = 40
    """Generations after the first population; a budget takes their place."""
    steady_state: int = 0
    """Children under way at once, instead of generations: as a result is taken in, in the order in which they were made,
    the next child is. With as many as workers, or some more, none waits for the end of a generation. 0 keeps generations."""
    epochs: int = 0
    """Epochs of proxy training per candidate; 0 takes those of the selection protocol."""
    inherit: bool = True
    """Children start from their parent's weights where the networks agree."""
    draws: int = 3
    """Random networks drawn for each of the first population; those spread evenly over the logarithm of cost, which is
    known without training, are trained. 1 takes them as they come."""
    rungs: int = 1
    """Successive halving: each generation starts with 2^(rungs − 1) times as many children on as small a part of the
    epochs; the better half of each rung trains on for twice as long. 1 trains all in full."""
    margin: float = 0.2
    """Individuals whose validation error exceeds the best's by more survive only where places are left (constrained
    domination); 1 turns this off. Otherwise tiny networks that are cheap but useless fill the population."""
    proposals: int = 6
    """Architectures to propose: of the Pareto front in error and cost, those that add most hypervolume."""

    def __post_init__(self) -> None:
        if self.population < 2:
            raise InputError(f"evoapproxnas needs a population of at least 2, not {self.population}")
        if min(self.offspring, self.generations, self.rungs, self.draws, self.proposals) < 1:
            raise InputError(
                "evoapproxnas needs at least one child, one generation, one rung, one draw and one proposal"
            )
        if self.epochs < 0:
            raise InputError(f"evoapproxnas cannot train for {self.epochs} epochs")
        if self.steady_state < 0:
            raise InputError(f"evoapproxnas cannot have {self.steady_state} children under way")
        if self.steady_state and self.rungs > 1:
            raise InputError("evoapproxnas halves generations, which a steady state has none of; use one rung")
        if not 0 <= self.margin <= 1:
            raise InputError(f"evoapproxnas needs a margin between 0 and 1, not {self.margin}")
        if self.rungs > 16:
            raise InputError(f"evoapproxnas cannot halve {self.rungs - 1} times; use fewer rungs")


class EvoApproxNas:
    """See the module's docstring. The first step evaluates a random population, each further one a generation, or in a
    steady state one child.
    """

    Config = EvoApproxNasConfig
    native_space = "grid"
    presets: ClassVar[dict[str, EvoApproxNasConfig]] = {
        "published": EvoApproxNasConfig(),
        # Small generations, so that there are many and a budget is met closely; inheritance makes up for one epoch.
        "quick": EvoApproxNasConfig(population=12, offspring=4, generations=13, epochs=1),
        "fast": EvoApproxNasConfig(population=8, offspring=4, generations=6, epochs=1, proposals=4),
    }

    def __init__(self, problem: Problem, config: EvoApproxNasConfig) -> None:
        self.problem, self.config = problem, config
        limit = problem.evaluation_limit
        if limit is not None and limit < config.population:
            raise InputError(
                f"a budget of {limit} candidates is below the first population of {config.population}; "
                "raise --budget or lower --evoapproxnas.population"
            )
        self.full_epochs = config.epochs or problem.selection_epochs
        if self.full_epochs < 2 ** (config.rungs - 1):
            raise InputError(
                f"{config.rungs} rungs need at least {2 ** (config.rungs - 1)} epochs per candidate, not "
                f"{self.full_epochs}; set --evoapproxnas.epochs or fewer rungs"
            )
        self.population: list[Individual] = []
        self.archive = ParetoArchive()
        self.seen: set[str] = set()  # keys of all candidates
        self.under_way: list[tuple[Architecture, Architecture]] = []  # children in a steady state, with their parents
        self.generation = 0  # steps done
        self.idle = 0  # steps in a row that found no new network
        self.per_generation = config.offspring if config.steady_state else 1  # steps
        self.total = 1 + config.generations * self.per_generation

    # -- one generation ----------------------------------------------------------------------------------------------

    def step(self) -> StepReport:
        """The first population, or the children of one generation and the selection of survivors."""
        known, sought = len(self.seen), True
        if self.generation == 0:
            architectures = self._first()
            newcomers = self._evaluate(architectures, [None] * len(architectures), rungs=1)
        else:
            if self.config.steady_state:
                newcomers, sought = self._oldest_child()
            else:
                newcomers = self._evaluate(*self._children(self._brood()), self.config.rungs)
            if self.generation % self.per_generation == 0:
                self._drift()
        if sought:
            self.idle = self.idle + 1 if len(self.seen) == known else 0
        self.archive.update(newcomers)
        pool: dict[str, Individual] = {}
        for individual in (*newcomers, *self.population):  # copies of one network must not fill the population
            pool.setdefault(individual.key, individual)
        self.population = survivors(list(pool.values()), self.config.population, self.config.margin)
        self.generation += 1
        parents = [parent.key for _, parent in self.under_way]
        self.problem.retain([individual.key for individual in self.population] + parents)
        return self._report(newcomers)

    def _oldest_child(self) -> tuple[list[Individual], bool]:
        """Make as many children as have room, and wait for the one that was made first. Also: whether any was made."""
        room = self.config.steady_state
        if not self.problem.open_ended:
            room = min(room, self.total - self.generation)
        count = room - len(self.under_way)
        if self.problem.evaluation_limit is not None:
            count = min(count, self.problem.evaluation_limit - len(self.seen))
        made = list(zip(*self._children(max(count, 0 if self.under_way else 1))))
        self.under_way += made
        children, parents = zip(*self.under_way)
        self.problem.announce(children, self.full_epochs, parents if self.config.inherit else None)
        newcomers = self._evaluate([children[0]], [parents[0]], rungs=1)
        del self.under_way[: len(newcomers)]  # none, where the time is over
        return newcomers, bool(made)

    def _first(self) -> list[Architecture]:
        """Different random networks, as many as the population holds, or as the space has; see ``draws``."""
        drawn: dict[str, Architecture] = {}
        wanted = self.config.draws * self.config.population
        for _ in range(_ATTEMPTS * wanted):
            if len(drawn) == wanted:
                break
            architecture = self.problem.space.sample(self.problem.rng)
            drawn.setdefault(architecture.key, architecture)
        first = list(drawn.values())
        if self.config.draws > 1:
            # What costs more than the reference is beyond the box in which fronts are measured, and takes longest to train.
            cost_of, highest = self.problem.cost_of, self.problem.reference_cost
            first = spread_over_cost(first, self.config.population, cost_of, highest)
        self.seen |= {architecture.key for architecture in first}
        return first

    def _brood(self) -> int:
        """Children of a generation."""
        count = self.config.offspring * 2 ** (self.config.rungs - 1)
        if self.problem.evaluation_limit is not None:
            count = max(1, min(count, self.problem.evaluation_limit - len(self.seen)))
        return count

    def _children(self, count: int) -> tuple[list[Architecture], list[Architecture]]:
        """Mutants of parents that won a tournament, new networks as far as they are to be found; and the parents."""
        parents = [winner.architecture for winner in tournament(self.population, count, self.problem.rng)]
        return [self._child(parent) for parent in parents], parents

    def _child(self, parent: Architecture) -> Architecture:
        for _ in range(_ATTEMPTS):
            child = self.problem.space.mutate(parent, self.problem.rng)
            if child.key not in self.seen:
                break
        self.seen.add(child.key)
        return child

    def _drift(self) -> None:
        """Neutral drift: survivors keep their network, but not the genes that have no effect on it."""
        for individual in self.population:
            individual.architecture = self.problem.space.drift(individual.architecture, self.problem.rng)

    def _evaluate(
        self, architectures: list[Architecture], parents: Sequence[Architecture | None], rungs: int
    ) -> list[Individual]:
        """Train all; with several rungs, all for a part of the epochs, the better half of them for twice as long, …

        Returns those that were trained in full: results of lower fidelity never meet them.
        """
        starts = parents if self.config.inherit else [None] * len(architectures)
        for rung in range(rungs - 1, 0, -1):
            tried = self._individuals(architectures, self.full_epochs // 2**rung, starts)
            if not tried:  # the time is over
                return []
            better = {individual.key for individual in survivors(tried, -(-len(tried) // 2), self.config.margin)}
            architectures = [architecture for architecture in architectures if architecture.key in better]
            starts = architectures  # goes on from where it stands
            self.problem.retain([individual.key for individual in self.population] + [a.key for a in architectures])
        return self._individuals(architectures, self.full_epochs, starts)

    def _individuals(
        self, architectures: list[Architecture], epochs: int, starts: Sequence[Architecture | None]
    ) -> list[Individual]:
        keeps_weights = self.config.inherit or self.config.rungs > 1
        evaluations = self.problem.evaluate(architectures, epochs, starts if keeps_weights else None)
        return [Individual(architecture, evaluation) for architecture, evaluation in zip(architectures, evaluations)]

    # -- what the harness asks ---------------------------------------------------------------------------------------

    def _report(self, newcomers: list[Individual]) -> StepReport:
        best = min(self.population, key=lambda i: objectives(i.evaluation)).evaluation
        return StepReport(
            step=self.generation,
            total=self.total,
            validation_error=best.error,
            cost=best.cost,
            diagnostics={
                "newcomers": len(newcomers),
                "failed": sum(individual.evaluation.failure is not None for individual in newcomers),
                "archive": len(self.archive),
                "front": len(first_front(self.population)),
                "hypervolume_3": self.archive.hypervolume(self.problem.reference_cost, self.problem.reference_params),
            },
        )

    @property
    def finished(self) -> bool:
        if self.idle >= _IDLE_GENERATIONS * self.per_generation:
            return True
        return not self.problem.open_ended and self.generation >= self.total

    def proposals(self) -> list[Architecture]:
        by_key = {individual.key: individual.architecture for individual in self.archive}
        front = [individual.evaluation for individual in self.archive]
        chosen = representatives(front, self.config.proposals, self.problem.reference_cost)
        return [by_key[evaluation.key] for evaluation in chosen]

    def state_dict(self) -> dict[str, Any]:
        pairs = [{"child": child.to_json(), "parent": parent.to_json()} for child, parent in self.under_way]
        return {
            **({"under_way": pairs} if self.config.steady_state else {}),
            "generation": self.generation,
            "idle": self.idle,
            "seen": sorted(self.seen),
            "population": [_to_plain(individual) for individual in self.population],
            "archive": [_to_plain(individual) for individual in self.archive],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generation, self.idle, self.seen = state["generation"], state["idle"], set(state["seen"])
        self.population = [self._from_plain(data) for data in state["population"]]
        measure_crowding(self.population)
        self.archive = ParetoArchive([self._from_plain(data) for data in state["archive"]])
        read = self.problem.space.from_json
        self.under_way = [(read(pair["child"]), read(pair["parent"])) for pair in state.get("under_way", ())]

    def _from_plain(self, data: dict[str, Any]) -> Individual:
        return Individual(self.problem.space.from_json(data["architecture"]), typed(data["evaluation"], Evaluation))


def _to_plain(individual: Individual) -> dict[str, Any]:
    return {"architecture": individual.architecture.to_json(), "evaluation": vars(individual.evaluation)}
