"""What the stages share: lists and datasets, the training loop, pseudo masks, boxes, metrics."""

import os

MOST_PIXELS = 2**27  # what decodes to more is no photograph, but an attack on the memory
os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(MOST_PIXELS))  # before OpenCV is imported
