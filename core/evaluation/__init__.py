"""How good a model folder is: loading it in float, perplexity on held-out text, one generated sentence."""
