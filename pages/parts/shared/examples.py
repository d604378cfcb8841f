"""Prompts to begin with, from the three domains the embedded family was trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A prompt and why it is worth a look."""

    title: str
    prompt: str
    look: str  # what to watch for
    method: str = "speculative_sampling"  # that shows it, with its defaults
    tau: tuple[float, float] = (1.0, 100.0)  # tokens per call, from and to, of the embedded family with the controls as they open


EXAMPLES: dict[str, Example] = {
    "once": Example(
        "Story: once upon a time",
        "Once upon a time there was a little",
        "A well-worn opening: the drafter knows it too.",
        tau=(2.0, 3.0),
    ),
    "fox": Example(
        "Story: the fox and the crow",
        "One day a fox saw a crow with a piece of cheese in her beak. The fox said to the crow,",
        "Speech begins: easy at first, then many words could follow and more guesses are turned down.",
        tau=(1.7, 2.7),
    ),
    "repeat": Example(
        "Python: the same again",
        'COLORS = {\n    "red": (255, 0, 0),\n    "green": (0, 255, 0),\n    "blue": (0, 0, 255),\n    "white": (255, 255, 255),\n'
        '    "black": (0, 0, 0),\n    "',
        "Every line is like the one before: prompt lookup copies from the text itself.",
        "prompt_lookup",
        (2.8, 5.0),
    ),
    "apples": Example(
        "Mathematics: apples",
        "Question: Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does Anna have left?\nAnswer:",
        "The numbers are copied, the calculation is not: see where the drafter goes wrong.",
        tau=(2.5, 4.2),
    ),
    "train": Example(
        "Mathematics: a train",
        "Question: A train drives 60 miles per hour for 3 hours and then 40 miles per hour for 2 hours. "
        "How many miles does it drive in all?\nAnswer:",
        "Two products and a sum: what stands in the question is guessed well.",
        tau=(2.3, 4.0),
    ),
    "class": Example(
        "Python: a class",
        "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):",
        "Code says everything twice: Token Recycling remembers what nearly came.",
        "token_recycling",
        (2.0, 3.2),
    ),
    "read": Example(
        "Python: read a file",
        'def read_lines(path):\n    """Return the lines of a file."""\n    with open(path',
        "Names of one's own are hard to guess: most guesses are turned down.",
        tau=(1.4, 2.3),
    ),
}

# For models with a chat template: what a user says.
CHAT_EXAMPLES: dict[str, Example] = {
    "haiku": Example("Chat: a haiku", "Write a haiku about rain.", "Few words, many ways to say them: guesses are turned down."),
    "sums": Example(
        "Chat: apples",
        "Anna has 12 apples. She gives 3 apples to each of her 2 friends. How many apples does Anna have left? Explain it.",
        "The answer repeats the question: what it copies is guessed well.",
    ),
    "code": Example("Chat: a function", "Write a Python function that reverses a string.", "Code says everything twice."),
    "story": Example(
        "Chat: a story",
        "Tell me a short story about a child who finds a little dog.",
        "Every word could be another one: watch the die decide.",
    ),
}
