"""Server-sent events: one poller of the database for every reader, bounded buffers, cursors to read on from."""
