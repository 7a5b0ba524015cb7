"""The `bitmill` command."""
