"""The pictures of single methods, one file each."""
