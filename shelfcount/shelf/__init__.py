"""From boxes to the shelf: rows and positions."""
