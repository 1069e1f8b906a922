"""What stands for one machine: makes, keeps and reports containers."""
