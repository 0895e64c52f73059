"""What each stage of the chain does, beyond training."""
