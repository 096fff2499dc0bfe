"""8×8-bit multipliers as truth tables: the circuits, their figures, their errors and their exact factorisation."""
