"""What networks are trained to do: a loss, a measure of error, an augmentation and the ends of a network.

A new task is one file here and one line in ``TASKS``, or an entry point in the group ``approxnas.tasks`` of another package.
"""

from spaces.plugins import Registry

TASKS: Registry[type] = Registry(
    "task",
    "approxnas.tasks",
    {"image_classification": "evaluation.training.tasks.image_classification:ImageClassification"},
)
