"""The arithmetic of the paper and of the field: losses, pseudo masks, boxes, metrics."""
