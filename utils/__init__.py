"""What the stages share: lists and datasets, the training loop, pseudo masks, boxes, metrics."""
