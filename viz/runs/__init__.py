"""Pictures of whole runs, alone and side by side."""
