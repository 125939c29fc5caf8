"""Datasets made of others: selected, joined, changed, cached, handed to TensorFlow."""
