"""Needle prompts: a tale of sentences that say nothing, one line among them that says what is asked at the end."""

from dataclasses import dataclass
from random import Random

FILLER = (
    "The wind moved over the hills and the grass bent a little.",
    "A cart went by on the road to the mill.",
    "Somebody had left a basket of apples beside the door.",
    "The old dog slept in the sun and did not lift his head.",
    "In the kitchen the bread was still warm.",
    "Two children ran down to the river to look at the boats.",
    "The baker swept the step in front of his shop.",
    "Far away a bell rang, and then it was quiet again.",
    "The clouds were white and slow above the fields.",
    "A woman hung the washing on a line between two trees.",
    "The miller counted his sacks and wrote the number down.",
    "Birds sat on the roof and talked about the weather.",
    "Nobody hurried, because it was the end of the summer.",
    "The cat watched a leaf that turned in the water.",
)
THINGS = ("key", "password", "signal", "colour of the door", "name of the ship", "secret word")
VALUES = ("silver", "winter", "dragon", "orange", "castle", "butter", "thunder", "garden", "copper", "velvet")


@dataclass(frozen=True)
class Needle:
    prompt: str  # ends right before the answer
    answer: str  # the next word, with its space


def needle(number: int, sentences: int = 18) -> Needle:
    """One of many; the same number gives the same prompt. The line stands in the first half."""
    dice = Random(number)
    thing, value = dice.choice(THINGS), dice.choice(VALUES)
    tale = [dice.choice(FILLER) for _ in range(sentences)]
    tale.insert(dice.randint(1, sentences // 2), f"The {thing} is {value}.")
    return Needle(f"{' '.join(tale)} And the {thing}? The {thing} is", f" {value}")
