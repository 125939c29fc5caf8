"""From shards to rows by id: the only disk I/O of training."""
