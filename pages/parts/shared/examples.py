"""Prompts to begin with, from the three domains the embedded family was trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A prompt and why it is worth a look."""

    title: str
    prompt: str
    look: str  # what to watch for


EXAMPLES: dict[str, Example] = {
    "once": Example(
        "Story: once upon a time", "Once upon a time there was a little", "A well-worn opening: the drafter knows it too."
    ),
    "fox": Example(
        "Story: the fox and the crow",
        "One day a fox saw a crow with a piece of cheese in her beak. The fox said to the crow,",
        "Speech begins: many words could follow, so more guesses are turned down.",
    ),
    "repeat": Example(
        "Story: the same again",
        'Tom had a red ball. Tom had a red hat. Tom had a red car. "I like red," said Tom. Tom had a red',
        "Repetition: prompt lookup copies from the text itself.",
    ),
    "apples": Example(
        "Mathematics: apples",
        "Question: Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does Anna have left?\nAnswer:",
        "The numbers are copied, the calculation is not: see where the drafter goes wrong.",
    ),
    "train": Example(
        "Mathematics: a train",
        "Question: A train drives 60 miles per hour for 3 hours and then 40 miles per hour for 2 hours. "
        "How many miles does it drive in all?\nAnswer:",
        "Two products and a sum.",
    ),
    "class": Example(
        "Python: a class",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n        ",
        "Indentation and self. are easy guesses, names are not.",
    ),
    "read": Example(
        "Python: read a file",
        'def read_lines(path):\n    """Return the lines of a file."""\n    with open(path',
        "Code repeats itself: try Token Recycling here.",
    ),
}

# For models with a chat template: what a user says.
CHAT_EXAMPLES: dict[str, Example] = {
    "story": Example(
        "Chat: a story",
        "Tell me a short story about a child who finds a little dog.",
        "Every word could be another one: watch the die decide.",
    ),
    "haiku": Example("Chat: a haiku", "Write a haiku about rain.", "Few words, many ways to say them: guesses are turned down."),
    "sums": Example(
        "Chat: apples",
        "Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does Anna have left? Explain it.",
        "The answer repeats the question: what it copies is guessed well.",
    ),
    "code": Example("Chat: a function", "Write a Python function that reverses a string.", "Code says everything twice."),
}
