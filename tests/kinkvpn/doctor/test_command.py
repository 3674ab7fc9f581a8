"""The command itself: which configuration, which peers, what it says and how it ends."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.doctor import HOST, PEER, TOLD, answered, found
from support.unprivileged import as_user

from kinkvpn import cli
from kinkvpn.doctor import command

GOOD = HOST + PEER.format(
    peer="kink/east.example.com@EXAMPLE.COM",
    address="",
    local="10.1.0.0/24",
    remote="10.2.0.0/24",
    how="",
    more="",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kinkvpn.toml"
    path.write_text(GOOD)
    return path


@pytest.mark.provokes("configuration-missing")
def test_without_a_configuration_this_host_alone_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEFAULT_PATH", tmp_path / "none.toml")
    configuration, findings = command.read(None)
    assert configuration is None
    assert set(found(findings)) == {"configuration-missing"}
    assert command.chosen(None, "east") == ()


@pytest.mark.provokes("configuration-invalid")
def test_a_configuration_that_is_wrong_is_a_finding_for_each_line(file: Path) -> None:
    file.write_text(GOOD.replace("local =", "lokal =").replace("remote =", "remotte ="))
    configuration, findings = command.read(file)
    assert configuration is None
    assert len(findings) >= 2
    assert set(found(findings)) == {"configuration-invalid"}
    assert findings[0].line.startswith(f"{file}:")


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "-c", str(tmp_path / "none.toml")]) == 2
    assert "cannot read the configuration: No such file or directory" in capsys.readouterr().err


def test_a_peer_that_there_is_not(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "esat", "-c", str(file)]) == 2
    assert capsys.readouterr().err == "kinkvpn: no peer 'esat'; there are east\n"
    configuration, _ = command.read(file)
    assert [peer.name for peer in command.chosen(configuration, "east")] == ["east"]


def test_a_peer_of_a_file_that_is_wrong_is_no_gateway(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(GOOD.replace("local =", "lokal ="))
    monkeypatch.setattr(command, "DEFAULT_PATH", file)
    monkeypatch.setattr(command, "LOOKS", ())
    out = io.StringIO()
    assert set(answered(command.run(None, "east", as_json=True, out=out), out.getvalue())) == {"configuration-invalid"}
    file.write_text(GOOD)
    with pytest.raises(command.NoSuchPeer, match="no peer 'esat'; there are east"):
        command.run(None, "esat", as_json=True, out=out)


@pytest.mark.provokes("configuration-hidden")
@pytest.mark.root
def test_a_file_that_only_others_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever names it there is nothing without it; for others there is what needs none."""

    def read(config: Path | None) -> list[str]:
        _, findings = command.read(config)
        return [f"{each.name} {each.severity.name} {each.command}" for each in findings]

    with TemporaryDirectory(prefix="kinkvpn-doctor-") as name:
        file = Path(name, "kinkvpn.toml")
        file.write_text(GOOD)
        file.chmod(0o600)
        monkeypatch.setattr(command, "DEFAULT_PATH", file)
        for mode in (0o755, 0o700):
            file.parent.chmod(mode)
            said = f"sudo kinkvpn doctor -c {file}"
            assert as_user(lambda: read(file)) == [f"configuration-hidden ERROR {said}"]
            assert as_user(lambda: read(None)) == [f"configuration-hidden NOTE {said}"]
    TOLD.add("configuration-hidden")  # in another process


def test_what_is_said_while_one_waits_goes_again() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out, expected in ((io.StringIO(), ""), (Terminal(), "\r\x1b[Kthe KDC ...\r\x1b[K")):
        progress = command.Progress(out)
        progress.begin("the KDC")
        progress.end()
        assert out.getvalue() == expected


def test_the_whole_of_it_is_bounded() -> None:
    """Nobody waits longer than that, whatever hangs; a person would have given up."""
    assert sum(look.seconds for look in command.LOOKS) < 360
    assert len({look.subject for look in command.LOOKS}) == len(command.LOOKS)
    for look in command.LOOKS:
        assert set(look.needs) <= {each.subject for each in command.LOOKS}


@pytest.mark.programs
def test_json_and_table_have_the_same_exit_code(file: Path) -> None:
    out, table = io.StringIO(), io.StringIO()
    told = answered(command.run(file, None, as_json=True, out=out), out.getvalue())
    assert set(told) >= {"keytab-missing"}
    assert command.run(file, "east", as_json=False, out=table) == 2
