"""Messages in reception: their bytes, their age, and their connections."""
