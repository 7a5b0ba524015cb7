"""One file per algorithm: what a linear's inputs tell it, and how it turns a weight into codes. No files, no HTTP."""
