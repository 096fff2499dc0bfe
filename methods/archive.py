"""What methods share that only evaluate candidates: what was tried, what is proposed, when it ends, and its state."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from methods.fronts import pareto_front, representatives
from methods.method import Evaluation, Problem, StepReport
from spaces.files.schema import typed
from spaces.space import Architecture

ATTEMPTS = 200  # repeated draws per new architecture, before none is left as far as anybody can tell


class ArchiveSearch(ABC):
    """A method that evaluates architectures batch by batch and proposes from the Pareto front of all of them.

    A subclass says which ones are next: that is the method. The rest of the contract in ``methods.method`` is here.
    The ``first`` ones are random; they are announced ahead, since they depend on no result.
    """

    def __init__(self, problem: Problem, samples: int, proposals: int, batch: int = 1, first: int = 0) -> None:
        self.problem, self.batch, self.wanted, self.first = problem, batch, proposals, first
        self.samples = problem.evaluation_limit or (sys.maxsize if problem.open_ended else samples)
        self.architectures: dict[str, Architecture] = {}  # by key, as are
        self.evaluations: dict[str, Evaluation] = {}
        self.drawn: list[list[Architecture]] = []  # batches that are drawn, and announced, but not evaluated
        self.exhausted = False  # no further architecture can be found
        self.steps = 0

    @abstractmethod
    def candidates(self, count: int) -> list[Architecture]:
        """Up to so many architectures that are not in the archive; none end the search, since no other can be found."""

    def random(self, count: int) -> list[Architecture]:
        """Up to so many new ones, as the space draws them."""
        return self.new(lambda: self.problem.space.sample(self.problem.rng), count)

    def new(self, draw: Callable[[], Architecture], count: int, attempts: int = ATTEMPTS) -> list[Architecture]:
        """Up to ``count`` different results of ``draw`` that were not drawn before, in so many attempts for each."""
        drawn: dict[str, Architecture] = {}
        waiting = {architecture.key for batch in self.drawn for architecture in batch}
        for _ in range(attempts * count):
            if len(drawn) == count:
                break
            architecture = draw()
            if architecture.key not in self.architectures and architecture.key not in waiting:
                drawn.setdefault(architecture.key, architecture)
        return list(drawn.values())

    def front(self) -> list[Evaluation]:
        """The Pareto front of what was evaluated and did not fail, most accurate first."""
        return pareto_front([evaluation for evaluation in self.evaluations.values() if evaluation.failure is None])

    def step(self) -> StepReport:
        """Evaluate one batch of new architectures."""
        self.draw()
        drawn = self.drawn.pop(0)
        self.problem.announce([architecture for batch in (drawn, *self.drawn) for architecture in batch])
        for architecture, evaluation in zip(drawn, self.problem.evaluate(drawn)):  # fewer where the time is over
            self.keep(architecture, evaluation)
        self.steps += 1
        return self.report()

    def keep(self, architecture: Architecture, evaluation: Evaluation) -> None:
        """Take it into the archive, in the place of an earlier evaluation of the same network."""
        self.architectures[architecture.key] = architecture
        self.evaluations[architecture.key] = evaluation

    def report(self) -> StepReport:
        """What is known at the end of a step."""
        everything, front = list(self.evaluations.values()), self.front()
        best = (front or pareto_front(everything))[0]
        return StepReport(
            step=self.steps,
            total=self.total,
            validation_error=best.error,
            cost=best.cost,
            diagnostics={
                "evaluated": len(everything),
                "failed": sum(evaluation.failure is not None for evaluation in everything),
                "front": len(front or pareto_front(everything)),
            },
        )

    def draw(self) -> None:
        """Draw the next batch, and of random ones as many more as keep all workers busy."""
        while not self.exhausted and (waiting := sum(map(len, self.drawn))) <= (
            self.problem.ahead if self.drawn else 0
        ):
            opening = len(self.evaluations) + waiting < self.first
            count = min(self.batch, self.left - waiting)
            if count == 0 or (self.drawn and not opening):
                break
            self.drawn.append(self.random(count) if opening else self.candidates(count))
            self.exhausted = len(self.drawn[-1]) < (count if opening else 1)

    @property
    def left(self) -> int:
        """How many more may be asked for."""
        return self.samples - len(self.evaluations)

    @property
    def total(self) -> int:
        """Steps in all."""
        return -(-self.samples // self.batch)

    @property
    def finished(self) -> bool:
        return (self.exhausted and not self.drawn) or len(self.evaluations) >= self.samples

    def proposals(self) -> list[Architecture]:
        chosen = representatives(self.front(), self.wanted, self.problem.reference_cost)
        return [self.architectures[evaluation.key] for evaluation in chosen]

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "exhausted": self.exhausted,
            "drawn": [[architecture.to_json() for architecture in batch] for batch in self.drawn],
            "architectures": [architecture.to_json() for architecture in self.architectures.values()],
            "evaluations": [vars(evaluation) for evaluation in self.evaluations.values()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        drawn = [self.problem.space.from_json(data) for data in state["architectures"]]
        self.architectures = {architecture.key: architecture for architecture in drawn}
        self.evaluations = {data["key"]: typed(data, Evaluation) for data in state["evaluations"]}
        self.drawn = [[self.problem.space.from_json(data) for data in batch] for batch in state["drawn"]]
        self.exhausted, self.steps = state["exhausted"], state["steps"]
