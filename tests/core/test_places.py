from pathlib import Path

import pytest

from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("runs", "runs"),
        ("/data/run#1", "/data/run#1"),
        ("a/$HOME/$x", "a/$HOME/$x"),
        ("$x.y", "$x.y"),
        ("a dir/ü:x/100%", "a dir/ü:x/100%"),
        ("C:/runs", "C:/runs"),
        ("./~x", "~x"),
        ("file:///a%20b/c", "/a b/c"),
        ("file://localhost/a", "/a"),
        ("FILE:/a", "/a"),
        (Path("file:///a"), "/a"),
    ],
)
def test_a_path_is_what_was_meant(written: str | Path, meant: str) -> None:
    assert local_path(written) == Path(meant)


@pytest.mark.parametrize("written", ["~/x", Path("~/x"), "~//x", "$HOME/x", Path("${HOME}/x")])
def test_the_home(written: str | Path, home: Path) -> None:
    assert local_path(written) == home / "x"


@pytest.mark.parametrize(
    ("written", "got"),
    [
        ("s3://b/r", "begins with s3:"),
        (Path("s3://b/r"), "begins with s3:"),
        ("gs://b", "begins with gs:"),
        ("abfs+x://b", "begins with abfs\\+x:"),
        ("https://h/x", "begins with https:"),
        ("file://other/x", "on the machine other"),
        ("~nobody-of-that-name/x", "unknown user"),
        ("$NOT_SET/x", "the variable NOT_SET, which is not set"),
        ("", "got none"),
        (" ", "got none"),
        ("a\0b", "a character"),
    ],
)
def test_what_is_not_a_path_is_one_line(written: str | Path, got: str) -> None:
    with pytest.raises(InputError, match=f"expected a path.*{got}") as caught:
        local_path(written)
    assert "\n" not in str(caught.value)
