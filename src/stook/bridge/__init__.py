"""Many users, their buckets, keys and quotas over one agent; never content keys, no HTTP. Still empty."""
