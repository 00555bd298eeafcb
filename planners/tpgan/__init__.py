"""TP-GAN: the conditional network that proposes a seed plan, its losses and its training.

torch is imported by `generator`, `discriminator`, `losses`, `checkpoint` and `train` alone; everything
else here, the command line included, loads without it. A trained network leaves as a checkpoint and is
served from ONNX.

Source: the idea of a conditional GAN on the template lattice, Aleef et al., MICCAI 2021. This one also
sees the urethra and the rectum, and dose is in its loss.
"""
