from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kinkvpn.kerberos.keytab import KeptKeytab
from kinkvpn.kerberos.libkrb5 import Context, Krb5Error

if TYPE_CHECKING:
    from pathlib import Path

    from support.kdc import Lab

pytestmark = pytest.mark.kdc

CAROL = "kink/carol.test@KINKVPN.TEST"


def kvnos(context: Context, kept: KeptKeytab) -> set[int]:
    return {kvno for _, kvno, _ in context.keytab_entries(kept.current())}


def test_the_copy_stays_until_the_file_changes(lab: Lab, tmp_path: Path) -> None:
    lab.keytab(CAROL)
    path = tmp_path / "keytab"
    lab.realm.write_keytab(CAROL, path)
    context = Context()
    kept = KeptKeytab(context, path)
    os.utime(path, (0, 0))
    first = kept.current()
    assert kept.current() is first
    assert kvnos(context, kept) == {1}
    lab.realm.kadmin("ktadd", "-k", str(path), CAROL)  # new keys, appended
    assert kept.current() is not first
    assert kvnos(context, kept) == {1, 2}


def test_what_changed_a_moment_ago_is_not_taken_for_settled(lab: Lab, tmp_path: Path) -> None:
    """An entry that ktremove voids leaves the size as it was; within one tick of the clock the time too."""
    lab.keytab(CAROL)
    path = tmp_path / "keytab"
    lab.realm.write_keytab(CAROL, path)
    context = Context()
    kept = KeptKeytab(context, path)
    assert kept.current() is not kept.current()
    os.utime(path, (0, 0))
    assert kept.current() is kept.current()


def test_another_file_in_its_place_is_read(lab: Lab, tmp_path: Path) -> None:
    lab.keytab(CAROL)
    path, other = tmp_path / "keytab", tmp_path / "other"
    lab.realm.write_keytab(CAROL, path)
    context = Context()
    kept = KeptKeytab(context, path)
    before = list(context.keytab_entries(kept.current()))
    lab.realm.kadmin("ktadd", "-k", str(other), CAROL)
    other.replace(path)
    after = list(context.keytab_entries(kept.current()))
    assert {name for name, _, _ in after} == {CAROL}
    assert max(kvno for _, kvno, _ in after) > max(kvno for _, kvno, _ in before)


def test_a_file_that_is_not_there_is_for_libkrb5_to_complain_of(tmp_path: Path) -> None:
    context, path = Context(), tmp_path / "keytab"
    kept = KeptKeytab(context, path)
    with pytest.raises(Krb5Error, match=str(path)):
        list(context.keytab_entries(kept.current()))


def test_a_file_that_came_later_counts_and_one_that_went_does_not(lab: Lab, tmp_path: Path) -> None:
    lab.keytab(CAROL)
    context, path = Context(), tmp_path / "keytab"
    kept = KeptKeytab(context, path)
    kept.current()
    lab.realm.write_keytab(CAROL, path)
    assert list(context.keytab_entries(kept.current()))
    path.unlink()
    with pytest.raises(Krb5Error, match=str(path)):
        list(context.keytab_entries(kept.current()))
