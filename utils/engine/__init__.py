"""Training loop, inference, precision, devices and process groups."""
