"""The stepper: one component that shows a run call by call, in the app and in the exported file."""
