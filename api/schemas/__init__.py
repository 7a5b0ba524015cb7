"""What the API reads and writes as JSON: pydantic models with the words that OpenAPI shows. No logic, no SQL."""
