"""What outputs mean: classes, detections, labels."""
