"""Loops compiled for one kind of device: by Numba for the CPU, by Triton for CUDA. They know tensors and no model.

Numba compiles a kernel anew when its own file changes, and does not look at those that it imports: whoever changes what
is emitted by hand (`bfloat16`, `float32_tiles`, `softmax`, `tiles`, `vectors`) or shared (`panels`) removes
`__pycache__`.
"""
