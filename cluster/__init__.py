"""Where workers run, how they talk, and how they fail. It imports no TensorFlow and knows nothing of datasets."""
