"""Files: written whole or not at all; JSON and YAML read with an error that names them."""

import pytest

from barlow_edu.storage import files


def test_replacing_replaces_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new folder" / "a.txt"
    with files.replacing(target) as temporary:
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_leaves_the_old_file_when_the_block_fails(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:
        temporary.write_text("half of the new")
        raise error
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_and_yaml_are_read_as_they_were_written(tmp_path):
    content = {"name": "λ", "rows": [1, 2.5, None, True]}
    files.write_json(tmp_path / "a" / "b.json", content)
    assert files.read_json(tmp_path / "a" / "b.json") == content
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8").endswith("}\n")
    files.write_yaml(tmp_path / "c.yaml", {"b": 1, "a": [2, 3]})
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8") == "b: 1\na:\n- 2\n- 3\n"
    files.write_text(tmp_path / "d.txt", "γ")
    assert (tmp_path / "d.txt").read_bytes() == "γ".encode()


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged: .*\.$"):
        files.read_json(tmp_path / "a.json")
