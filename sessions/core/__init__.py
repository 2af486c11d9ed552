"""What every stage uses. Nothing here imports a stage."""
