"""The table of keys and the gate: a file may forbid what the cluster allows, and never the other way round."""

from typing import Any

from kmseal.cli.census import Census, Holder, Needs
from kmseal.cli.keyrows import KeyRow, KeyRows
from kmseal.cli.keytable import Blocker, Overview, render_table
from kmseal.cli.report import ObjectReport
from kmseal.cli.traces import Trace
from kmseal.errors import Malformed
from kmseal.holdings import Held, KeyUse

OLD, NEW = (f"acs:kms:cn-hangzhou:1234567890123456:key/key-{name}" for name in ("old", "new"))
ALIAS = "acs:kms:cn-hangzhou:1234567890123456:alias/app"


def kms_key(generation: int = 3, observed: int | None = 3, **status: Any) -> dict[str, Any]:
    """A KMSKey with an alias that moved from OLD to NEW, as the operator describes it."""
    standard = {
        "keyId": NEW,
        "state": "Enabled",
        "primaryVersion": "n2",
        "previousKeys": [OLD],
        "versions": [
            {"keyId": NEW, "id": "n1", "primary": False, "inGit": 2, "inCluster": 0},
            {"keyId": NEW, "id": "n2", "primary": True, "inGit": 5, "inCluster": 7},
        ],
        "objects": 7,
        "stale": {"inCluster": 0, "inGit": 2, "objects": []},
        "safeToDisable": [{"keyId": OLD}, {"keyId": NEW, "keyVersionId": "n1"}],
    }
    metadata = {"name": "app", "generation": generation}
    return {
        "metadata": metadata,
        "spec": {"keyId": ALIAS, "replaces": [f"{OLD}er"]},
        "status": {**standard, "observedGeneration": observed, **status},
    }


def holder(*used: tuple[str, str], file: str = "a.yaml", name: str = "db") -> Holder:
    return Holder(file, "prod", name, tuple(Held(KeyUse(*item), KeyUse(*item)) for item in used))


def overview(census: Census | None = None, *cluster: Holder, **status: Any) -> tuple[Overview, KeyRow]:
    row = KeyRow.read(kms_key(**status))
    return Overview(KeyRows([row]), Needs(cluster), census), row


def test_without_files_the_cluster_says_what_is_safe() -> None:
    """A whole key, and a version of another."""
    whole, row = overview()
    assert whole.safe(row) == [KeyUse(OLD), KeyUse(NEW, "n1")]
    assert whole.table()[1] == [ALIAS, "Enabled", "n2", "7", "0", "2", f"{OLD}, n1"]


def test_what_a_file_needs_is_not_safe() -> None:
    """A version, or any version of a key that is to go; and it is said how many objects there are."""
    whole, row = overview(Census([holder((NEW, "n1")), holder((NEW, "n2"), name="web")]))
    assert whole.safe(row) == [KeyUse(OLD)]
    assert whole.blocked(row) == [(KeyUse(NEW, "n1"), Blocker.FILES, 1)]
    assert whole.table()[1][3:] == ["7", "0", "2", "1", OLD]
    whole, row = overview(Census([holder((OLD, "any"), (NEW, "n2"))]))
    assert whole.safe(row) == [KeyUse(NEW, "n1")]
    assert whole.blocked(row) == [(KeyUse(OLD), Blocker.FILES, 1)]


def test_files_free_nothing() -> None:
    """What the operator does not call safe stays so when no file needs it."""
    whole, row = overview(Census([]), safeToDisable=[])
    assert whole.safe(row) == []
    assert whole.table()[1][-1] == "-"


def test_a_file_that_cannot_be_read_makes_nothing_safe() -> None:
    """What is in it is not known."""
    failed = ObjectReport("bad.yaml")
    failed.fail(Malformed("is not YAML"))
    whole, row = overview(Census([], [failed]))
    assert whole.safe(row) == []


def test_a_status_that_is_older_than_its_spec_frees_nothing() -> None:
    """Somebody has just added a key that is to be replaced."""
    for observed in (2, None):
        whole, row = overview(observed=observed)
        assert whole.safe(row) == []
        assert not row.observed


def test_a_key_that_the_operator_has_not_seen_is_shown_as_unknown() -> None:
    """Without a status there is nothing to say."""
    row = KeyRow.read({"metadata": {"name": "app", "generation": 1}, "spec": {"keyId": OLD}})
    assert Overview(KeyRows([row]), Needs([])).table()[1] == [OLD, "Unknown", "-", "0", "0", "0", "-"]
    assert KeyRow.read({"metadata": {}, "spec": {"keyId": ALIAS}}).key_id == ""


def test_wrappings_follow_the_alias_and_what_it_replaces() -> None:
    """To the primary version of the key that it names now."""
    keys = overview()[0].keys
    assert keys.destination(OLD) == keys.destination(f"{OLD}er") == keys.destination(NEW) == KeyUse(NEW, "n2")
    assert [keys.is_stale_anywhere(KeyUse(*use)) for use in ((OLD, "o1"), (NEW, "n1"), (NEW, "n2"))] == [
        *(True, True, False)
    ]


def test_an_alias_that_moved_does_not_take_from_a_key_that_people_registered() -> None:
    """As the operator has it: two aliases that were swapped would chase each other's wrappings."""
    raw = kms_key()
    own = {"metadata": {"name": "own", "generation": 1}, "spec": {"keyId": OLD}, "status": {"primaryVersion": "o1"}}
    met = own | {"metadata": {"name": "own", "labels": {"kmseal.dev/registered": "automatic"}}}
    use = KeyUse(OLD, "o1")
    neutral = {**met, "apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}
    assert not KeyRows(map(KeyRow.read, (raw, own))).is_stale_anywhere(use)
    assert KeyRows(map(KeyRow.read, (raw, neutral))).is_stale_anywhere(use)
    raw["spec"]["replaces"] = [OLD]
    assert KeyRows(map(KeyRow.read, (raw, own))).is_stale_anywhere(use)
    whole = Overview(KeyRows([KeyRow.read(own)]), Needs([]), Census([holder((OLD, "o1"))]))
    assert whole.stale_in_files(whole.keys.rows[0]) == 0


def test_what_an_object_of_the_cluster_needs_is_not_safe() -> None:
    """Whatever the operator said last: it may have stopped. In the spec or in the status."""
    whole, row = overview(None, holder((NEW, "n1"), file=""))
    assert whole.safe(row) == [KeyUse(OLD)]
    assert whole.blocked(row) == [(KeyUse(NEW, "n1"), Blocker.CLUSTER, 1)]
    newest = Holder("", "prod", "db", (Held(KeyUse(NEW, "n2"), KeyUse(OLD, "o1")),))
    whole, row = overview(None, newest)
    assert whole.safe(row) == [KeyUse(NEW, "n1")]
    assert whole.to_dict()["keys"][0]["neededByCluster"] == [{"keyId": OLD, "objects": 1}]


def test_what_a_file_names_elsewhere_is_not_safe() -> None:
    """That one only: the others are not touched."""
    whole, row = overview(Census([holder((NEW, "n2"))]))
    found = Trace("values.yaml", KeyUse(OLD), Malformed("names it"))
    whole = Overview(whole.keys, whole.cluster, whole.census, (found,))
    assert whole.safe(row) == [KeyUse(NEW, "n1")]
    assert whole.to_dict()["keys"][0]["namedElsewhere"] == [{"keyId": OLD, "file": "values.yaml"}]


def test_versions_are_counted_in_the_cluster_and_in_files() -> None:
    """Also those that only a file knows."""
    whole, _ = overview(Census([holder((NEW, "n1"), ("local:dev", "1"))]))
    assert whole.version_table()[1:] == [
        [NEW, "n1", "0", "2", "1"],
        [NEW, "n2", "7", "5", "0"],
        ["local:dev", "1", "-", "-", "1"],
    ]


def test_programs_get_all_of_it() -> None:
    """With what files forbid, and whether the status is current."""
    whole, _ = overview(Census([holder((OLD, "o1"))]))
    content = whole.to_dict()
    (key,) = content["keys"]
    assert (key["name"], key["keyId"], key["primaryVersion"], key["statusIsCurrent"]) == ("app", NEW, "n2", True)
    assert key["stale"] == {"inCluster": 0, "inGit": 2, "inFiles": 1}
    assert key["safeToDisable"] == [{"keyId": NEW, "keyVersionId": "n1"}]
    assert key["neededByFiles"] == [{"keyId": OLD, "objects": 1}]
    assert content["versions"][0] == {
        "keyId": NEW,
        "keyVersionId": "n1",
        "primary": False,
        "inCluster": 0,
        "inGit": 2,
        "inFiles": 0,
    }
    assert "inFiles" not in overview()[0].to_dict()["keys"][0]["stale"]


def test_columns_are_as_wide_as_they_must_be() -> None:
    """And no line ends with blanks."""
    assert render_table([["A", "B", "C"], ["long", "x", ""]]) == "A      B   C\nlong   x\n"
