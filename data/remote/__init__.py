"""Datasets on object stores, and the cache of their shards."""
