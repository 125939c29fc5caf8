"""What is stored: values, columns, manifests, shards and their files."""
