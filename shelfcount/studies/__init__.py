"""Long measurements that resume: random splits, cross-validation and stress tests."""
