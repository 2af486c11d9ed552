"""Programs that run where the wheel is installed. They import nothing of ours."""
