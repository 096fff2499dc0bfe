"""One convolution on a mixture of multipliers."""
