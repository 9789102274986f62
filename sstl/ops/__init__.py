"""Pure tensor maths: no files, no networks, no state."""
