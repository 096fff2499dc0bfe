"""Cells of a few edges, of which all networks can be trained: the space of the benchmark table."""
