"""What answers back, and the boundary that holds it to its protocol."""
