"""The paper's arithmetic: losses, pseudo masks, boxes; and the metrics."""
