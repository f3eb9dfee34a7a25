"""What two or more stages share. It imports no stage."""
