"""Data: sources of images, long-tailed subsets, sampling, augmentation and batches."""
