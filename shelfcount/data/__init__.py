"""Label formats, data sets and their splits."""
