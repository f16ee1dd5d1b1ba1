"""What several test folders share. Nothing here imports the code under test."""
