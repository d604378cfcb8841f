"""A whole run as one HTML file."""
