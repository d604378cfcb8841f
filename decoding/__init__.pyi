from decoding.methods import METHODS as METHODS
from decoding.models.family import load as load
from decoding.runs.run import Run as Run
from decoding.sample import Sampling as Sampling

DOOR: dict[str, str]
