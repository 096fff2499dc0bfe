"""Ways to compute the same sums Σ T[x̂, ŵ]; every engine is bit-exact, they differ in speed alone.

An engine is a module with one signature. Operands arrive as indices into the table, one byte each (uint8): activations
(N, C, H, W), weights (O, C/groups, kH, kW).

* ``refusal(table, device)``: why the engine cannot compute with the table on the device; empty when it can.
* ``channels(table)``: by how many channels per input channel it computes; 0 when it looks products up.
* ``pack(weights, table, geometry)``: the weights in the engine's own form, to be reused while they do not change.
* ``conv2d(x, packed, fill, scale)``: the sums (N, O, H', W'); padded positions hold the index ``fill`` and go through the
  table; on a GPU ``fill`` may be a 0-dimensional tensor, so that nothing has to be waited for. Without ``scale`` the
  exact sums, in a dtype that holds every one of them; with ``scale`` (O,) the sum rounded once to float32, times the scale
  in float32, so that all engines agree bit for bit there, too.

Tables that mix circuits are real-valued: ``mixture`` computes with them, on GPUs ``gpu.mixture``.
"""
