"""The steps of a run from folder to folder, in the order in which the data passes them; `core.pipeline` takes them."""
