"""Where sums over spikes are faster than dense convolutions, and where they need less energy: see `__main__.py`."""
