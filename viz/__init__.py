"""Pictures, tables and sentences of a trace: pure functions that know the frozen data, nothing else of the program."""
