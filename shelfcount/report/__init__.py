"""Reports: annotated photos, plots and HTML pages."""
