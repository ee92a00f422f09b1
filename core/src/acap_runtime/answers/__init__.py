"""The meaning of outputs: classes, detections, labels."""
