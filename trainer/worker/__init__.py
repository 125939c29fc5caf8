"""A worker: builds the model, runs the tasks of the driver, and between steps follows its chief."""
