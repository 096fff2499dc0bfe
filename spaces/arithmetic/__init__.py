"""Networks that compute with 8-bit multipliers: quantisation, exact emulation of a circuit, and the layers."""
