"""Safetensors folders in and out: a lazy reader, a resumable work folder, a writer that commits a whole folder."""
