"""Search methods by name.

A new method is one file here and one line in ``METHODS``, or an entry point in the group ``approxnas.methods`` of
another package.
"""

from spaces.plugins import Registry

METHODS: Registry[type] = Registry(
    "method",
    "approxnas.methods",
    {
        "approxdarts": "methods.approxdarts:ApproxDarts",
        "evoapproxnas": "methods.evoapproxnas:EvoApproxNas",
        "random": "methods.random_search:RandomSearch",
    },
)
