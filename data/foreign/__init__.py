"""Files of others as datasets: Parquet and Arrow files without a manifest, read where they lie."""
