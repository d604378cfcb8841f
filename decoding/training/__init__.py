"""How the shipped weights were made. Nothing here is imported by the app."""
