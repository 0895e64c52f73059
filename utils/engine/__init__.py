"""What runs a network: training, inference, precision, devices and processes."""
