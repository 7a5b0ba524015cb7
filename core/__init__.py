"""The engine. It knows torch, transformers and safetensors; it knows no job, queue, HTTP, database or environment variable."""
