"""From rows to shards: the resumable writer, and the formats it writes."""
