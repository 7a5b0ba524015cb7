"""Loops compiled for one kind of device: by Numba for the CPU, by Triton for CUDA. They know tensors and no model."""
