"""What is in a finished wheel: facts read from the file, then checks of them."""
