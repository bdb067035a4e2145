"""What is done in containers of an image: its content is checked, and brought into the form of a tree."""
