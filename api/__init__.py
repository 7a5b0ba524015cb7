"""The HTTP surface: store plus the torch-free half of core."""
