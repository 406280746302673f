from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from captum_concepts_tile2vec.checkpoints import Settings
from captum_concepts_tile2vec.data import folder_recordings, split_by_group
from captum_concepts_tile2vec.tiles import find_tiles
from captum_concepts_tile2vec.training import TrainingOptions, train

SETTINGS = Settings("ConvNet1D", size=4, features="mfcc", seconds=0.25)
OPTIONS = TrainingOptions(epochs=4, batch_size=16, learning_rate=1e-3, l2=0.0, neighbourhood=0.5, seed=5)

KILLED = """
import sys
from captum_concepts_tile2vec.checkpoints import Settings
from captum_concepts_tile2vec.data import folder_recordings, split_by_group
from captum_concepts_tile2vec.tiles import find_tiles
from captum_concepts_tile2vec.training import TrainingOptions, train
split = split_by_group(folder_recordings(sys.argv[1]), 0.34, 0)
train(find_tiles(split.train, 0.25), find_tiles(split.evaluate, 0.25), sys.argv[2],
      Settings("ConvNet1D", size=4, features="mfcc", seconds=0.25),
      TrainingOptions(epochs=4, batch_size=16, learning_rate=1e-3, l2=0.0, neighbourhood=0.5, seed=5), device="cpu",
      progress=lambda stage, done, total: print(stage, done, flush=True))
"""


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(write_folder, tmp_path):
    folder = write_folder(per_class=3)
    split = split_by_group(folder_recordings(folder), 0.34, 0)
    parts = find_tiles(split.train, 0.25), find_tiles(split.evaluate, 0.25)

    def run(out: Path, **more: object) -> Path:
        return train(*parts, out, SETTINGS, OPTIONS, device="cpu", **more)

    expected = run(tmp_path / "whole").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in process.stdout:
        if line.strip() == "train 8":  # in the third of four epochs, of three steps each
            process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    card = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert not card["finished"] and len(card["history"]) == 2
    begun = []
    weights = run(tmp_path / "killed", progress=lambda stage, done, total: begun.append(done))
    assert begun[0] == 7  # nothing of the first two epochs was trained again
    assert weights.read_bytes() == expected
