"""Recordings of event cameras and their frames: data sets, file formats and augmentation."""
