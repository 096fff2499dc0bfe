"""Cost models by name: what turns the rows of a network into one number.

A new model is one file here and one line in ``COSTS``, or an entry point in the group ``approxnas.costs`` of another
package. Nothing that these modules import needs torch, except ``spaces.costs.trace``, which makes the rows.
"""

from spaces.costs.model import CostModel
from spaces.plugins import Registry

COSTS: Registry[CostModel] = Registry(
    "cost model",
    "approxnas.costs",
    {
        "horowitz45": "spaces.costs.horowitz45:HOROWITZ45",
        "system45": "spaces.costs.system45:SYSTEM45",
        "approxdarts": "spaces.costs.approxdarts:APPROXDARTS",
        "memory": "spaces.costs.memory:MEMORY",
    },
)
