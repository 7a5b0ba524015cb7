"""Runs jobs: claims them from the store and drives the engine in a child process."""
