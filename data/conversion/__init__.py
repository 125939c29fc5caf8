"""From other formats and libraries to datasets, and back to Arrow."""
