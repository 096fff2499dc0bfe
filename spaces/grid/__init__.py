"""Grids of Cartesian genetic programming as a search space."""

from spaces.grid.space import GridSpace

__all__ = ["GridSpace"]
