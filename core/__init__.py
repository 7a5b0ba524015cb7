"""The engine: torch, transformers, safetensors. No job, queue, HTTP, database or environment variable."""
