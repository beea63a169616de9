"""Training: backbones, networks, losses, training loop and run folders. It needs torch."""
