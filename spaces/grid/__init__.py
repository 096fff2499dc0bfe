"""Grids of Cartesian genetic programming as a search space."""
