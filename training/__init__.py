"""What the conditional GANs here are trained with: checkpoints, steps, the run on disk, card tables."""
