"""Ways to compute the same sums Σ T[x̂, ŵ]; every engine is bit-exact, they differ in speed alone."""
