"""Candidates looked up in a table of trained networks instead of being trained: what ``--evaluator table`` means."""

from evaluation.benchmark.header import Table, embedded
from evaluation.benchmark.table import BenchTable
from evaluation.datasets import ImageSet
from evaluation.searching.candidates import Job, Result, Trained
from evaluation.searching.conditions import Conditions
from evaluation.searching.seeds import derived_seed
from methods.method import Evaluation
from spaces.errors import InputError
from spaces.space import Architecture


class TableEvaluator:
    """See ``evaluation.searching.evaluators.Evaluator``.

    A search sees one of a network's trainings, which one depends on its seed; judging sees the next, as many as the
    protocol's judgements. Seconds are those that the training took when the table was made. A candidate that goes on from
    its own parent takes those of the epochs in between; one that inherits from another is given the result, and the seconds,
    of a training from scratch.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.conditions, self.table = conditions, table_for(conditions)
        self.reliability = self.table.reliability

    def evaluate(self, job: Job) -> Result:
        """Raises InputError for a network or a number of epochs that the table does not have."""
        epoch = self.table.epoch(job.epochs)
        ahead = 0 if job.purpose == "search" else 1 + job.repeat
        training = (derived_seed(job.seed, job.architecture.key) + ahead) % self.table.seeds
        errors, seconds = self.table.training(job.architecture, training)
        begun = job.epochs - job.missing_epochs
        spent = seconds[epoch] - (seconds[begun - 1] if begun else 0.0)
        evaluation = Evaluation(
            job.architecture.key, float(errors[epoch]), *self.conditions.costs(job.architecture), None, job.epochs
        )
        kept = Trained(job.architecture, job.epochs, {}) if job.keeps_weights else None
        return Result(evaluation, float(spent), kept)

    def test_accuracy(self, architecture: Architecture, arithmetic: str) -> float:
        """Of a finalist: see ``evaluation.searching.evaluators.Evaluator``."""
        if arithmetic == "approximate":
            return 1.0 - self.table.query(architecture).test_error
        return 1.0 - self.table.reference_test_error(architecture, arithmetic)


def table_for(conditions: Conditions) -> Table:
    """The table inside the package whose networks were trained under these conditions.

    Raises InputError where there is none, and says what those that there are need.
    """
    wanted = {multiplier.name: multiplier.key for multiplier in conditions.space.library}
    data = conditions.data.everything
    trained_on = ImageSet(data.images.cpu().numpy(), data.labels.cpu().numpy()).fingerprint
    offers = []
    for name in sorted(embedded()):
        header = BenchTable.load(name, doubtful=True).header
        same = (
            header.plan.space == conditions.space.name
            and header.plan.make_space().config == conditions.space.config
            and header.trains_as(conditions.protocol)
            and header.tables == wanted
            and header.train_fingerprint == trained_on
        )
        if same:
            return BenchTable.load(name)
        plan = header.plan
        offers.append(
            f"--space {plan.space} --dataset {plan.dataset} --protocol {plan.protocol} --multipliers "
            + " ".join(plan.multipliers)
        )
    raise InputError(f"no table has networks that were trained so; there is one for {'; or for '.join(offers)}")
