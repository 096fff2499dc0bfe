"""The published tables: what their authors report, what can be computed, and what records of this suite measure."""
