"""Where calibration text comes from, and how text becomes a counted, seeded set of token windows."""
