"""A path that is no dataset's is answered with what is there, and what to write."""

from __future__ import annotations

import numpy as np
import pytest
from heliostat.data import DatasetNotFoundError, open_dataset, write_dataset


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("train-sat", r"no such folder; did you mean .*train-set"),
        ("home/data/set", r"no such folder, and none of it beyond "),
        ("rows.csv", r"it is a file.*heliostat\.data\.convert\('.*rows\.csv', 'rows-set'\)"),
        ("sets", r"holds several\. Give one of them: .*sets/a, .*sets/b"),
        (
            "photos",
            r"folder of pictures.*convert\('.*photos', 'photos-set'\).*open_dataset\('photos-set'\)\.decode\('image', ",
        ),
        ("photos/*/*.jpg", r"it is a pattern.*convert\('.*\*\.jpg', 'train-set'\).*a folder for each class"),
        ("empty", r"no manifest\.json.*heliostat\.data\.convert\('.*empty', 'empty-set'\)"),
    ],
)
def test_a_wrong_path_is_answered_with_what_to_write(tmp_path, given, answer):
    write_dataset(tmp_path / "train-set", {"x": np.zeros(3)})
    for name in "ab":
        write_dataset(tmp_path / "sets" / name, {"x": np.zeros(3)})
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.JPG").touch()
    with pytest.raises(DatasetNotFoundError, match=answer):
        open_dataset(tmp_path / given)
