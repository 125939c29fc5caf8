"""Where a run's numbers go besides screen and run folder: TensorBoard, MLflow, W&B, Prometheus, and what users write.

All of it happens in the driver's process: workers hold no credentials, and know of no server. Each tracker has a thread
of its own (`thread`), so that a server that is slow, down or wrong costs a run nothing but a line that says so. What is
sent is made from the values that a run records, in one place for all (`numbers`); the modules named after a service say
how it gets there, and are the only ones to import its client, when a run begins.
"""
