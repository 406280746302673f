"""Training that gives the same weights after an interruption (extra ``training``)."""

from captum_concepts.training.run_folder import RunFolder
from captum_concepts.training.schedule import Precision, Schedule
from captum_concepts.training.training_run import fit

__all__ = [
    "Precision",
    "RunFolder",
    "Schedule",
    "fit",
]
