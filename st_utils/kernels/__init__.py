"""Fused backends of the parts: the whole time loop in one pass over memory, with the plain torch code as definition."""
