"""Networks, losses, augmentation and training; the room that needs torch."""
