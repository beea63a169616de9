"""Pictures of detections, crops and planograms."""
