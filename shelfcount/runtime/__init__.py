"""A bundle as a detector, on LiteRT; never imports torch."""
