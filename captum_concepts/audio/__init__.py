"""Clips, files, decoding, patches and front-ends."""

from captum_concepts.audio._torchaudio import load as load_torchaudio
from captum_concepts.audio.clips import AudioError, Channels, Clip, ClipError, Status
from captum_concepts.audio.decoding import FORMATS, SILENCE, Source
from captum_concepts.audio.files import as_clips, duration, file_digest, find_audio
from captum_concepts.audio.frontends import PRESETS, Frontend, FrontendConfig, frontend
from captum_concepts.audio.patches import Patches, Short, iter_patches, read_clip

__all__ = [
    "FORMATS",
    "PRESETS",
    "SILENCE",
    "AudioError",
    "Channels",
    "Clip",
    "ClipError",
    "Frontend",
    "FrontendConfig",
    "Patches",
    "Short",
    "Source",
    "Status",
    "as_clips",
    "duration",
    "file_digest",
    "find_audio",
    "frontend",
    "iter_patches",
    "load_torchaudio",
    "read_clip",
]
