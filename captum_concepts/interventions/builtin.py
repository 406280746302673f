"""The interventions that come along; ``INTERVENTIONS["stretch"](1.25)`` makes one.

What the processing alone does to a model is the effect of the sham. On ten GTZAN tracks and MSD-VGG (root mean square
over 50 tags, in logits; ``benchmarks/validity/interventions.py``) it is 0.10 for ``stretch`` at 1.25, where the effect
is 0.26, and 0.11 for ``shift`` by 2 semitones, where the effect is 0.15: compare these with their sham, or take half
the difference of the opposites. For all others at their usual strength it is 0.00, where the effects are 0.39 to 1.06.
"""

from __future__ import annotations

from captum_concepts.interventions.add_sound import AddSound
from captum_concepts.interventions.bandwidth import Bandwidth
from captum_concepts.interventions.brightness import Brightness
from captum_concepts.interventions.harmonic import Harmonic
from captum_concepts.interventions.intervention import Intervention
from captum_concepts.interventions.level import Level
from captum_concepts.interventions.noise import Noise
from captum_concepts.interventions.percussion import Percussion
from captum_concepts.interventions.reverberation import Reverberation
from captum_concepts.interventions.reversal import Reversal
from captum_concepts.interventions.shift import Shift
from captum_concepts.interventions.silence import Silence
from captum_concepts.interventions.stretch import Stretch

INTERVENTIONS: dict[str, type[Intervention]] = {
    "add_sound": AddSound,
    "stretch": Stretch,
    "shift": Shift,
    "brightness": Brightness,
    "bandwidth": Bandwidth,
    "level": Level,
    "noise": Noise,
    "reverberation": Reverberation,
    "percussion": Percussion,
    "harmonic": Harmonic,
    "silence": Silence,
    "reversal": Reversal,
}
