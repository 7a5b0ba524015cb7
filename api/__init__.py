"""The HTTP service: validates requests, writes rows, streams artifacts. It carries no torch and quantizes nothing."""
