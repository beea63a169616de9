"""Detection metrics: matching, F1, mAP, score thresholds, uncertainty and confusions."""
