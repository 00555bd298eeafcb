"""From a trained network to a published model; serving a model needs nothing of this."""
