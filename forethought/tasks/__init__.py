"""What is asked, and who knows the answer. `families` makes a family by its name; `base` says what one is."""
