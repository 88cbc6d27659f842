"""What lies on disk: atomic files, shards and their manifest."""
