"""What people look at: annotated photos, figures, HTML."""
