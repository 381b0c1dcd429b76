"""Where images come from, which of them train, and how they become batches."""
