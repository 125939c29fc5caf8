"""The worker: builds the model and runs the tasks of the driver."""
