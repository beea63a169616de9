"""Count products on shop shelves with a detector that fits a phone."""
