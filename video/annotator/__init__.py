"""The annotator: a conditional GAN from frame to label map, and the renderer it learns from."""
