"""Where images come from: lists, the layouts of the two data sets, reading, transforms, batches."""
