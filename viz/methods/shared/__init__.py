"""What the pictures of several methods share."""
