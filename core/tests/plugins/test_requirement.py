"""What a plugin's metadata say of the core and of other plugins, held against what is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from acap_runtime import NotReady
from acap_runtime.plugins.requirement import check_requirements

Installed = Callable[..., None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Makes a version of a distribution the one that is found; it goes with the test."""

    def make(**versions: str) -> None:
        for name, version in versions.items():
            info = tmp_path / f"{name}-0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\n" + f"Version: {version}\n" * bool(version)
            )
        monkeypatch.syspath_prepend(tmp_path)

    return make


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("acap-runtime>=0.1,<0.2", "needs acap-runtime>=0.1,<0.2, and 0.1.0 is installed"),
        ("acap-runtime<0.2,>=0.1", "needs acap-runtime>=0.1,<0.2, and 0.1.0 is installed"),
        ("acap_runtime (>=0.1.0)", "needs acap-runtime>=0.1.0, and 0.1.0 is installed"),
        ("Acap.Runtime[testing] != 0.1.1, <= 0.1", "needs acap-runtime<=0.1,!=0.1.1, and 0.1.0 is installed"),
        ("acap-runtime~=0.1.0", "needs acap-runtime~=0.1.0, and 0.1.0 is installed"),
        ("acap-runtime==0.*", "needs acap-runtime==0.*, and 0.1.0 is installed"),
        ("acap-runtime>=0.1a1", "needs acap-runtime>=0.1a1, and 0.1.0 is installed"),
        ("acap-runtime @ file:///somewhere", "needs acap-runtime, and 0.1.0 is installed"),
        ("acap-runtime", "needs acap-runtime, and 0.1.0 is installed"),
        ("acap-runtime>=0.1; python_version>='3'", "needs acap-runtime>=0.1, and 0.1.0 is installed"),
        ("acap-runtime>=9; python_version<'3'", None),
        ("acap-runtime>=9; extra == 'testing'", None),
        ("acap-runtimes>=9", None),
        ("numpy>=9999", None),
        ("what is this?", None),
    ],
)
def test_a_requirement_that_fits_is_said_in_words(installed: Installed, line: str, said: str | None) -> None:
    installed(acap_runtime="0.1.0")
    assert check_requirements("fake", [line]) == ([] if said is None else [said])


@pytest.mark.parametrize(
    ("here", "line", "said"),
    [
        ("0.1.0", "acap-runtime>=0.2,<0.3", "needs acap-runtime>=0.2,<0.3, and 0.1.0 is installed"),
        ("0.2.0", "acap-runtime>=0.1,<0.2", "needs acap-runtime>=0.1,<0.2, and 0.2.0 is installed"),
        ("0.1.0", "acap-runtime>0.1", "needs acap-runtime>0.1, and 0.1.0 is installed"),
        ("0.1.0", "acap-runtime~=1.0,>=7", "needs acap-runtime~=1.0,>=7, and 0.1.0 is installed"),
        ("0.1.0", "acap-runtime>>1", r"its requirement 'acap-runtime>>1' cannot be judged: .*"),
        ("0.1.0", "acap-runtime>1; os_name~='x'", r"its requirement .* cannot be judged: .*"),
        ("odd", "acap-runtime>=0.1", ".*odd.*"),
    ],
)
def test_one_that_does_not_fit_says_what_is_needed_what_is_here_and_what_to_do(
    installed: Installed, here: str, line: str, said: str
) -> None:
    installed(acap_runtime=here)
    with pytest.raises(NotReady, match=rf"^{said}[:;] pip install --upgrade fake$"):
        check_requirements("fake", [line])


@pytest.mark.parametrize(
    ("here", "range_", "fits"),
    [
        ("0.2.0.dev0", ">=0.1,<0.2", False),
        ("0.2.0.dev0", ">=0.2,<0.3", False),
        ("0.2.0.dev0", ">=0.2.dev0,<0.3", True),
        ("0.1.1rc1", ">=0.1,<0.2", True),
        ("0.1.1.post1+vendor", ">=0.1,<0.2", True),
    ],
)
def test_a_prerelease_is_admitted_by_the_range_that_it_is_in(
    installed: Installed, here: str, range_: str, fits: bool
) -> None:
    installed(acap_runtime=here)
    if fits:
        assert check_requirements("fake", [f"acap-runtime{range_}"])
    else:
        with pytest.raises(NotReady, match=f"and {here} is installed"):
            check_requirements("fake", [f"acap-runtime{range_}"])


def test_other_plugins_that_are_needed_count_too(installed: Installed) -> None:
    installed(acap_runtime="0.1.0", acap_runtime_old="0.1.0")
    lines = ["numpy>=1.26", "acap-runtime>=0.1,<0.2"]
    assert len(check_requirements("fake", [*lines, "acap-runtime-old>=0.1,<0.2"])) == 2
    with pytest.raises(NotReady, match=r"^needs acap-runtime-old>=0\.2, and 0\.1\.0 is installed: pip"):
        check_requirements("fake", [*lines, "acap-runtime-old>=0.2"])
    with pytest.raises(NotReady, match=r"^needs acap-runtime-gone>=0\.1, which is not installed: pip"):
        check_requirements("fake", [*lines, "acap-runtime-gone>=0.1"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons will raise where a version is missing
def test_metadata_that_an_interrupted_install_left_are_words_too(installed: Installed) -> None:
    installed(acap_runtime="")
    with pytest.raises(NotReady, match=r"which is not installed|cannot be judged"):
        check_requirements("fake", ["acap-runtime>=0.1"])


def test_who_needs_nothing_of_ours_is_let_be() -> None:
    assert check_requirements("fake", []) == []
