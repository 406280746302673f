from __future__ import annotations

import os
from pathlib import Path

import pytest
from captum_concepts_tile2vec.data import (
    Recording,
    Split,
    all_recordings,
    dcase_evaluation_recordings,
    dcase_recordings,
    folder_recordings,
    gtzan_recordings,
    layout_of,
    recordings_from,
    split_by_group,
)

from captum_concepts.errors import InputError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def recordings(count: int, labels: int = 1) -> list[Recording]:
    return [Recording(f"/a/{i}.wav", f"{i}.wav", f"label{i % labels}", f"/a/{i}.wav") for i in range(count)]


def test_a_folder_per_class(write_folder):
    root = write_folder(per_class=2)
    (root / "loose.wav").write_bytes(b"RIFF")
    found = folder_recordings(root)
    assert [(r.name, r.label) for r in found] == [
        (os.path.join("absence", "0.wav"), "absence"),
        (os.path.join("absence", "1.wav"), "absence"),
        (os.path.join("cooking", "0.wav"), "cooking"),
        (os.path.join("cooking", "1.wav"), "cooking"),
        ("loose.wav", ""),
        (os.path.join("working", "0.wav"), "working"),
        (os.path.join("working", "1.wav"), "working"),
    ]
    assert all(r.group == r.path for r in found)


def test_no_audio(tmp_path):
    with pytest.raises(InputError, match="no audio in this folder"):
        folder_recordings(tmp_path)


@pytest.mark.parametrize("fold", [1, 2])
def test_dcase_folds_are_cut_by_session(dcase, fold):
    split = dcase_recordings(dcase, fold)
    assert len(split.train) == len(split.evaluate) == 12
    assert not {r.group for r in split.train} & {r.group for r in split.evaluate}
    expected = {f"ex{4 * row + session}" for row in range(3) for session in ((0, 1) if fold == 1 else (2, 3))}
    assert {r.group for r in split.train} == expected
    # Evaluation files have no session column: it comes from meta.txt.
    assert all(r.label in ("absence", "cooking", "working") and r.group.startswith("ex") for r in split.evaluate)
    assert all(Path(r.path).is_file() for r in (*split.train, *split.evaluate))
    assert recordings_from(dcase, fold=fold) == split


def test_dcase_mistakes(dcase):
    train = dcase / "evaluation_setup" / "fold1_train.txt"
    with pytest.raises(InputError, match=r"fold7_train.txt'?: cannot be read \(No such file"):
        dcase_recordings(dcase, 7)
    text = train.read_text()
    train.write_text("")
    with pytest.raises(InputError, match="the file has no lines"):
        dcase_recordings(dcase)
    train.write_text(text + "audio/strange.wav\tabsence\tex0\n")
    with pytest.raises(InputError, match=r"'audio/strange\.wav' is not in meta\.txt"):
        dcase_recordings(dcase)
    train.write_text(text + "audio/DevNode3_ex2_0.wav\tabsence\tex2\n")
    with pytest.raises(InputError, match="session 'ex2' is in fold 1's train and evaluate files"):
        dcase_recordings(dcase)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("audio/x.wav\tabsence\n", "line 25 has 2 fields"),
        ("audio/DevNode1_ex0_0.wav\tcooking\tex0\n", "line 25 says otherwise"),
        ("audio/x.wav\t\tex0\n", "line 25 has 3 fields"),
    ],
)
def test_dcase_meta_mistakes(dcase, line, words):
    meta = dcase / "meta.txt"
    meta.write_text(meta.read_text() + line)
    with pytest.raises(InputError, match=words):
        dcase_recordings(dcase)


def test_dcase_paths_stay_in_the_folder(dcase):
    for name in ("meta.txt", "evaluation_setup/fold1_train.txt"):
        path = dcase / name
        path.write_text(path.read_text() + "../../etc/passwd\tabsence\tex99\n")
    with pytest.raises(InputError, match="lies outside this folder"):
        dcase_recordings(dcase)


def test_dcase_evaluation_set(dcase_evaluation):
    found = dcase_evaluation_recordings(dcase_evaluation)
    assert [r.label for r in found] == ["absence", "cooking", "working"] * 2
    assert [r.name for r in found] == [f"audio/{number}.wav" for number in range(1, 7)]
    # Sessions of their own: the development set has an ex0 too.
    assert [r.identity for r in found] == [f"evaluation ex{session}" for session in (0, 0, 1, 1, 2, 2)]
    assert recordings_from(dcase_evaluation) == Split([], found)
    assert all_recordings(dcase_evaluation) == found
    assert all(Path(r.path).is_file() for r in found)


def test_dcase_evaluation_lists_without_sessions_are_completed_from_meta(dcase_evaluation):
    full = recordings_from(dcase_evaluation)
    path = dcase_evaluation / "evaluation_setup" / "evaluate.txt"
    path.write_text("".join(line.rpartition("\t")[0] + "\n" for line in path.read_text().splitlines()))
    assert recordings_from(dcase_evaluation) == full
    path.write_text("audio/2.wav\n")
    assert recordings_from(dcase_evaluation).evaluate == [full.evaluate[1]]
    (dcase_evaluation / "meta.txt").unlink()
    with pytest.raises(InputError, match=r"meta\.txt'?: cannot be read"):
        recordings_from(dcase_evaluation)


def test_dcase_evaluation_set_mistakes(dcase_evaluation):
    path = dcase_evaluation / "evaluation_setup" / "evaluate.txt"
    text = path.read_text()
    path.write_text(text + "audio/7.wav\tabsence\n")
    with pytest.raises(InputError, match=r"evaluate\.txt'?: 'audio/7\.wav' is not in meta\.txt; add its line there"):
        recordings_from(dcase_evaluation)
    path.write_text(text + "audio/7.wav\t\tex9\n")
    with pytest.raises(InputError, match=r"evaluate\.txt'?: line 7 has 3 fields"):
        recordings_from(dcase_evaluation)
    path.write_text(text + "../../secret.wav\tabsence\tex9\n")
    with pytest.raises(InputError, match="lies outside this folder"):
        recordings_from(dcase_evaluation)
    path.unlink()
    with pytest.raises(
        InputError, match=r"fold1_train\.txt'?: cannot be read .* or evaluate\.txt in its evaluation set"
    ):
        recordings_from(dcase_evaluation)


def test_all_of_a_folder(dcase, write_folder):
    split = dcase_recordings(dcase)
    assert all_recordings(dcase) == [*split.train, *split.evaluate]
    root = write_folder(per_class=1)
    assert all_recordings(root) == folder_recordings(root)
    assert [r.identity for r in all_recordings(root)] == [r.name for r in folder_recordings(root)]


def test_a_folder_of_data_sets_is_no_folder_of_classes(dcase):
    assert layout_of(dcase) == "dcase"
    with pytest.raises(InputError, match="holds DCASE data in 'dcase'; give that folder"):
        recordings_from(dcase.parent)
    assert layout_of(dcase.parent, "folder") == "folder"


def test_a_split_keeps_groups_whole_in_any_order():
    sessions = [Recording(f"{i}.wav", f"{i}", "x", f"session{i // 3}") for i in range(60)]
    split = split_by_group(sessions, 0.25, seed=3)
    assert not {r.group for r in split.train} & {r.group for r in split.evaluate}
    assert len({r.group for r in split.evaluate}) == 5
    backwards = split_by_group(sessions[::-1], 0.25, seed=3)
    assert set(backwards.evaluate) == set(split.evaluate)
    assert set(split_by_group(sessions, 0.25, seed=4).evaluate) != set(split.evaluate)


def test_a_split_is_the_same_again_and_stratified():
    # The original cut its music anew after every epoch, which leaked training music into evaluation.
    these = recordings(40, labels=4)
    assert split_by_group(these, 0.25, 0) == split_by_group(these, 0.25, 0)
    labels = [r.label for r in split_by_group(these, 0.2, 0).evaluate]
    assert sorted(labels) == sorted(f"label{i}" for i in range(4) for _ in range(2))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_small_splits_leave_something_on_both_sides(count):
    split = split_by_group(recordings(count), 0.2, 0)
    assert split.train
    assert len(split.evaluate) == (1 if count < 4 else 2)


def test_split_mistakes():
    with pytest.raises(InputError, match="1 recording or session: a split needs two"):
        split_by_group(recordings(1), 0.2, 0)
    with pytest.raises(InputError, match=r"share=1\.0"):
        split_by_group(recordings(4), 1.0, 0)


def test_unknown_layout(write_folder):
    with pytest.raises(InputError, match="layout='zip'"):
        recordings_from(write_folder(), "zip")


def test_gtzan_through_its_plugin():
    pytest.importorskip("captum_concepts_gtzan.dataset")
    if not (SHARED / "gtzan_mini").is_dir():
        pytest.skip("no ../shared/data/gtzan_mini")
    found = gtzan_recordings(SHARED / "gtzan_mini")
    assert len(found) == 100
    assert len({r.label for r in found}) == 10
