"""Networks as boxes and arrows, for spaces whose architectures are graphs of operations."""
