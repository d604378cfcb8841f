"""The course: seven lessons of short cards, each bound to recorded runs. One file per lesson holds its words; whatever number or
token they name is taken from the run they point to."""
