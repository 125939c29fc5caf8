"""All-reduces that TensorFlow's collectives carry."""
