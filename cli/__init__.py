"""The `bitmill` program: each command parses what was typed, calls store, core or the API, and prints."""
