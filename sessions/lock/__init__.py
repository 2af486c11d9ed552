"""For maintainers: pin another upstream release or CUDA version."""
