"""What is written about a tested wheel, and where it is published."""
