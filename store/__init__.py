"""The meeting point of api, worker and cli: SQL, object storage and the broker's "send". No torch, no HTTP."""
