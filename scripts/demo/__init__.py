"""The demo: a text classifier trained in three ways on real data that every machine has."""
