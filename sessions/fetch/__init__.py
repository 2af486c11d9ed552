"""What is fetched before a build: the upstream source, the CUDA toolkit, the locks."""
