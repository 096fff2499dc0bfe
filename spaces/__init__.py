"""ApproxNAS-Bench: what can be built, and what it costs: multipliers, the arithmetic that uses them, energy, spaces."""
