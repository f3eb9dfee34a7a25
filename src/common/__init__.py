"""What two stages share. It imports no stage."""
