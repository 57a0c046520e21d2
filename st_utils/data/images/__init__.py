"""Still images: data sets and their augmentation."""
