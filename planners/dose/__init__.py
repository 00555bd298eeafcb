"""TG-43 dose: the reference, the sources, the native engine. cm and degrees live here alone."""
