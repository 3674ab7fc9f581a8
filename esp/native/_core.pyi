"""What the compiled engine shows to Python."""
