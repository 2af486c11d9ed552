"""The wheel run on a GPU or the CPU, here or elsewhere."""
