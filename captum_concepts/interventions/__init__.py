"""Interventions: what a concept does to a sound."""

from captum_concepts.interventions.add_sound import AddSound, add_at_level
from captum_concepts.interventions.bandwidth import Bandwidth
from captum_concepts.interventions.brightness import Brightness
from captum_concepts.interventions.builtin import INTERVENTIONS
from captum_concepts.interventions.comparison import log_mel_difference
from captum_concepts.interventions.harmonic import Harmonic
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.level import Level
from captum_concepts.interventions.levels import row_key
from captum_concepts.interventions.noise import Noise
from captum_concepts.interventions.percussion import Percussion
from captum_concepts.interventions.reverberation import Reverberation
from captum_concepts.interventions.reversal import Reversal
from captum_concepts.interventions.shift import Shift
from captum_concepts.interventions.silence import Silence
from captum_concepts.interventions.stretch import Stretch

__all__ = [
    "INTERVENTIONS",
    "AddSound",
    "Bandwidth",
    "Brightness",
    "Harmonic",
    "Intervention",
    "Level",
    "Noise",
    "Percussion",
    "Reverberation",
    "Reversal",
    "Shift",
    "Silence",
    "Stretch",
    "add_at_level",
    "log_mel_difference",
    "row_key",
]
