"""Data sets of event cameras' recordings: file formats, frames, cache and augmentation.

    create("dataset", "nmnist", data_dir="data", step=10, event_size=34)

Data sets are in sets.py, recorded.py, shd.py and digits_dvs.py; N-Omniglot and CEP-DVS in ../paired/. A recording's
file is found (scan.py), read (files.py), integrated into frames (frames.py) and cached (cache.py); augment.py and
mix.py change frames in training.
"""
