"""What is written about a finished wheel: all of it made from records, nothing typed by hand."""
