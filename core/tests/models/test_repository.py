"""Models on disk, and what is written of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from acap_runtime import InvalidRequest, NotFound
from acap_runtime.contract.batching import Batching
from acap_runtime.errors import Forbidden
from acap_runtime.models.repository import file_of, models_in, versions_of
from acap_runtime.settings.model_source import LATEST, ModelSource, VersionPolicy, as_option_text, parse_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in ("1", "2", "0010"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.tflite").write_bytes(version.encode())
    for other in ("tmp", "3.part", "-1", "99999999999999999999"):
        (tmp_path / other).mkdir()
    (tmp_path / "4").write_text("no folder")
    return tmp_path


def test_a_file_is_version_1_and_folders_are_versions_by_their_numbers(folder: Path) -> None:
    assert versions_of(folder) == {1: folder / "1", 2: folder / "2", 10: folder / "0010"}
    assert versions_of(folder / "1" / "model.tflite") == {1: folder / "1" / "model.tflite"}


def test_a_folder_without_versions_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"expected folders named by numbers, with a model file in each, such as .*/1/mod"
    ):
        versions_of(tmp_path)
    with pytest.raises(NotFound, match=r"does not exist"):
        versions_of(tmp_path / "absent")


def test_the_file_of_a_version_is_called_model_or_is_the_only_one(folder: Path) -> None:
    (folder / "1" / "labels.txt").write_text("cat")
    assert file_of(folder / "1").path == folder / "1" / "model.tflite"
    (folder / "2" / "model.tflite").rename(folder / "2" / "digits.tflite")
    (folder / "2" / ".hidden").write_text("")
    assert file_of(folder / "2").path == folder / "2" / "digits.tflite"
    (folder / "2" / "other.tflite").write_text("")
    with pytest.raises(InvalidRequest, match=r"expected one file called model.*got digits.tflite, other.tflite"):
        file_of(folder / "2")


def test_a_file_that_takes_anothers_place_is_another(folder: Path) -> None:
    before = file_of(folder / "1")
    assert file_of(folder / "1") == before
    (folder / "1" / "new").write_bytes(b"1")
    (folder / "1" / "new").replace(folder / "1" / "model.tflite")
    assert file_of(folder / "1") != before


def test_a_folder_of_models_has_files_by_their_stems_and_folders_of_versions(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = folder / "models"
    models.mkdir()
    for name in ("a.tflite", "b.tflite", "twice.tflite", "labels.txt", ".hidden.tflite", "c.bin"):
        (models / name).write_text("")
    for name in ("versioned/3", "twice/1", "empty"):
        (models / name).mkdir(parents=True)
    found = models_in(models, (".tflite", ".bin"))
    assert found == [
        ModelSource("a", models / "a.tflite"),
        ModelSource("b", models / "b.tflite"),
        ModelSource("c", models / "c.bin"),
        ModelSource("versioned", models / "versioned"),
    ]
    assert "model twice is not served: expected one of its name" in caplog.text
    with pytest.raises(NotFound, match=r"model folder '.*/absent' does not exist"):
        models_in(models / "absent", (".tflite",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_says_so(folder: Path) -> None:
    folder.chmod(0)
    with pytest.raises(Forbidden, match=r"cannot be read"):
        versions_of(folder)
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (LATEST, [7]),
        (VersionPolicy(latest=2), [3, 7]),
        (VersionPolicy(latest=9), [1, 3, 7]),
        (VersionPolicy(), [1, 3, 7]),
        (VersionPolicy(specific=frozenset([1, 3, 4])), [1, 3]),
        (VersionPolicy(specific=frozenset([5])), []),
    ],
)
def test_a_policy_chooses_versions(policy: VersionPolicy, chosen: list[int]) -> None:
    assert policy.choose({7, 1, 3}) == chosen


WRITTEN = [
    "a=/m/a",
    "/m/a.tflite",
    "a=/m/a,threads=2,chip=4,instances=2,queue=7",
    "a=/m/a,versions=latest:3",
    "a=/m/a,versions=all,labels=stable:1+next:2",
    "a=/m/a,versions=1+3",
    "a=/m/a,warm_up=zeros",
    "a=/m/a,warm_up=/m/x.npy:/m/y.png",
    "a=/m/a,batch=8,batch_delay=0.005",
    "a=/m/a,disable-winograd=1,int8=yes",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_model_is_written_as_it_is_read(text: str) -> None:
    assert as_option_text(parse_model(text)) == text


def test_what_a_model_says_is_what_it_gets() -> None:
    source = parse_model("a=/m/a,chip=cpu-tflite,threads=2,batch=4,warm_up=zeros,versions=latest")
    assert source == ModelSource(
        "a", Path("/m/a"), {"threads": "2"}, chip="cpu-tflite", batching=Batching(4, 0.0), warm_up=None
    )


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("chip=", "chip: expected a chip's number, name or alias, got nothing"),
        ("queue=0", "queue: expected an integer from 1 to 100000, got '0'"),
        ("versions=newest", r"versions: expected latest, latest:N, all, or numbers such as 1\+3, got 'newest'"),
        ("versions=latest:0", "versions: expected an integer from 1 to 1000"),
        ("versions=99999999999999999999", "versions: expected latest"),
        ("labels=stable", "labels: expected LABEL:VERSION"),
        ("labels=:1", "labels: expected LABEL:VERSION"),
        ("warm_up=", "warm_up: expected zeros, no, or files"),
        ("batch=0", "batch: expected an integer from 1"),
        ("batch_delay=11", "batch_delay: expected at most 10 seconds, got '11'"),
    ],
)
def test_an_option_that_does_not_parse_is_named(option: str, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        parse_model(f"a=/m/a,{option}")
