"""Steps of a network in one call, in inference on the CPU."""
