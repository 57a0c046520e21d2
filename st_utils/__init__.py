"""The parts that models are assembled from, and what feeds, trains and measures them.

Everywhere an activation has the axes `T B C H W`: time step, sample, channel, row, column.
"""
