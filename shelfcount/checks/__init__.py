"""Data checks: what `shelfcount check` finds on photos, boxes and classes."""
