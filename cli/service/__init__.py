"""Embedded mode: one launcher that runs the API and a worker as child processes and leaves none behind."""
