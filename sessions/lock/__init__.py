"""The session ``lock`` for maintainers: pins another upstream release or CUDA version."""
