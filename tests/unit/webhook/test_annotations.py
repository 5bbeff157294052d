"""What a pod asks for: the annotations, read strictly."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.errors import Malformed
from kmseal_webhook.annotations import (
    DEFAULT_PATH,
    INJECTED,
    PREFIX,
    InjectedSecret,
    Injection,
    parse,
)


def ours(**annotations: str) -> dict[str, str]:
    """Annotations under our prefix; a double underscore stands for a full stop."""
    return {PREFIX + name.replace("__", "."): text for name, text in annotations.items()}


def only(injection: Injection | None) -> InjectedSecret:
    assert injection is not None
    assert len(injection.secrets) == 1
    return injection.secrets[0]


def refusal(annotations: dict[str, str]) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse(annotations)
    return caught.value


def test_nothing_asked() -> None:
    """A pod without annotations of ours asks for nothing; neither does one with other people's."""
    assert parse({}) is None
    assert parse({"example.com/inject": "db", "kmseal.dev.example.com/inject": "db"}) is None


def test_a_leftover_of_an_injection_asks_for_nothing() -> None:
    """The annotation that we write ourselves opts nobody in."""
    assert parse({INJECTED: "0123456789abcdef"}) is None


def test_defaults() -> None:
    """A list of secrets is enough: files in a folder for each, in all containers, read once."""
    injection = parse(ours(inject="db, cache"))
    assert injection == Injection(
        secrets=(
            InjectedSecret("db", files=True, env=False, path=f"{DEFAULT_PATH}/db", file="db"),
            InjectedSecret("cache", files=True, env=False, path=f"{DEFAULT_PATH}/cache", file="cache"),
        )
    )
    assert injection is not None
    assert injection.secret("cache") is injection.secrets[1]
    assert injection.secret("other") is None
    assert not any(secret.needs_value_names for secret in injection.secrets)


def test_everything_at_once() -> None:
    """Each annotation of the pod is read."""
    injection = parse(
        ours(
            inject="db",
            path="/etc/app",
            mode="0440",
            containers="app, warm-up",
            refresh="5m",
            reload="http://127.0.0.1:9000/-/reload?now=1",
            as__db="both",
            names__db="password=DB_PASSWORD, user=DB_USER",
        )
    )
    names = {"password": "DB_PASSWORD", "user": "DB_USER"}
    secret = InjectedSecret("db", files=True, env=True, path="/etc/app/db", mode=0o440, names=names, file="db")
    assert injection == Injection((secret,), ("app", "warm-up"), 300, "http://127.0.0.1:9000/-/reload?now=1")
    assert secret.needs_value_names


def test_a_secret_s_own_annotation_wins() -> None:
    """What is said of one secret goes before what is said of all, and concerns no other."""
    injection = parse(
        ours(inject="db,my.cache", **{"as": "env"}, mode="0444", as__db="files", mode__db="0400", path__db="/db")
    )
    assert injection is not None
    db, cache = injection.secrets
    assert (db.files, db.env, db.mode, db.path) == (True, False, 0o400, "/db")
    assert (cache.files, cache.env, cache.mode, cache.path) == (False, True, 0o444, f"{DEFAULT_PATH}/my.cache")


def test_a_secret_with_full_stops_in_its_name() -> None:
    """The name of the secret is all that follows the first full stop."""
    assert only(parse(ours(inject="a.b.c", mode__a__b__c="0444"))).mode == 0o444


def test_a_template_is_the_only_file() -> None:
    """A template makes one file, called like the secret or as it is said."""
    text = "{{ values.user }}:{{ values.password }}"
    assert only(parse(ours(inject="db", template__db=text))).file == "db"
    secret = only(parse(ours(inject="db", template__db=text, file__db="pgpass")))
    assert (secret.template, secret.file) == (text, "pgpass")
    assert not secret.needs_value_names


@pytest.mark.parametrize(
    ("text", "seconds"), [("off", None), ("30s", 30), ("90s", 90), ("5m", 300), ("24h", 86_400), ("1440m", 86_400)]
)
def test_refresh(text: str, seconds: int | None) -> None:
    """A time of 30 seconds to a day, or off."""
    injection = parse(ours(inject="db", refresh=text))
    assert injection is not None
    assert injection.refresh_seconds == seconds


@pytest.mark.parametrize(
    ("text", "signals"),
    [
        ("http://127.0.0.1/reload", False),
        ("http://localhost:65535/", False),
        ("signal:HUP:nginx", True),
        ("signal:USR1:gunicorn-3.11_x", True),
    ],
)
def test_reload(text: str, signals: bool) -> None:
    """An address of the pod itself, or a signal for a process of it."""
    injection = parse(ours(inject="db", refresh="5m", reload=text))
    assert injection is not None
    assert (injection.reload, injection.signals) == (text, signals)


# Each mistake: the annotations beside ``inject: db``, the annotation that is blamed, the message, the remedy.
MISTAKES = [
    ({"inject": ""}, "inject", '"" names nothing', "names of EncryptedSecrets"),
    ({"inject": "db,,x"}, "inject", '"db,,x" has an empty item', "separated by commas"),
    ({"inject": "db, db"}, "inject", 'names "db" twice', "remove one"),
    ({"inject": "DB"}, "inject", '"DB" cannot be the name', "lower-case"),
    ({"inject": "db cache"}, "inject", '"db cache" cannot be the name', "lower-case"),
    ({"inject": ",".join(f"s{i}" for i in range(17))}, "inject", "names 17", "fewer"),
    ({"as": "file"}, "as", '"file" is not possible', "files, env, both"),
    ({"as": "Files"}, "as", '"Files" is not possible', "files, env, both"),
    ({"as.db": ""}, "as.db", '"" is not possible', "files, env, both"),
    ({"path": "relative"}, "path", '"relative" is not an absolute path', "/run/secrets/app"),
    ({"path": ""}, "path", '"" is not an absolute path', "/run/secrets/app"),
    ({"path": "/"}, "path", "whole file system", "/run/secrets/app"),
    ({"path": "/./"}, "path", "whole file system", "/run/secrets/app"),
    ({"path": "/a/../b"}, "path", 'goes up by ".."', "/run/secrets/app"),
    ({"path": "/a//b/"}, "path", "parts that mean nothing", "write it as /a/b"),
    ({"path": "/a/./b"}, "path", "parts that mean nothing", "write it as /a/b"),
    ({"path": "/a:b"}, "path", "a character", "/run/secrets/app"),
    ({"path": "/a\nb"}, "path", '"/a\\nb" has a character', "/run/secrets/app"),
    ({"path": "/proc/self"}, "path", "under /proc", "/run/secrets/app"),
    ({"path.db": "/sys"}, "path.db", "under /sys", "/run/secrets/app"),
    ({"path": "/dev/x"}, "path", "under /dev", "/run/secrets/app"),
    ({"path": "/" + "a" * 1024}, "path", "more than 1024", "shorten"),
    ({"mode": "400"}, "mode", '"400" is not an octal mode', '"0440"'),
    ({"mode": "0o400"}, "mode", "is not an octal mode", '"0440"'),
    ({"mode": "256"}, "mode", "is not an octal mode", '"0440"'),
    ({"mode": "0488"}, "mode", "is not an octal mode", '"0440"'),
    ({"mode": "4755"}, "mode", "is not an octal mode", '"0440"'),
    ({"mode": "0377"}, "mode", "forbids the owner to read", '"0400"'),
    ({"mode.db": "0666"}, "mode.db", "lets everybody write", '"0664"'),
    ({"containers": ""}, "containers", "names nothing", "names of containers"),
    ({"containers": "app,app"}, "containers", 'names "app" twice', "remove one"),
    ({"refresh": "5"}, "refresh", '"5" is not a time', "as 5m"),
    ({"refresh": "0s"}, "refresh", '"0s" is not a time', "as 5m"),
    ({"refresh": "1h30m"}, "refresh", "is not a time", "as 5m"),
    ({"refresh": "29s"}, "refresh", '"29s" is not between', "as 5m"),
    ({"refresh": "25h"}, "refresh", '"25h" is not between', "as 5m"),
    ({"refresh": "٥m"}, "refresh", "is not a time", "as 5m"),
    ({"reload": "http://127.0.0.1/x"}, "reload", "would never happen", "refresh"),
    ({"reload": "http://127.0.0.1/x", "refresh": "off"}, "reload", "would never happen", "refresh"),
    ({"reload": "https://127.0.0.1/x", "refresh": "1m"}, "reload", "is neither", "http://127.0.0.1"),
    ({"reload": "http://10.0.0.1/x", "refresh": "1m"}, "reload", "does not name this pod", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1@evil/x", "refresh": "1m"}, "reload", "does not name this pod", "http://127.0.0.1"),
    ({"reload": "http://localhost.evil/x", "refresh": "1m"}, "reload", "does not name this pod", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1:0/x", "refresh": "1m"}, "reload", "does not name this pod", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1:65536/x", "refresh": "1m"}, "reload", "does not exist", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1", "refresh": "1m"}, "reload", "needs a path", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1/x#y", "refresh": "1m"}, "reload", "needs a path", "http://127.0.0.1"),
    ({"reload": "http://127.0.0.1/x y", "refresh": "1m"}, "reload", "is neither", "http://127.0.0.1"),
    ({"reload": "signal:SIGHUP:x", "refresh": "1m"}, "reload", '"SIGHUP" is not a signal', "HUP, INT"),
    ({"reload": "signal:KILL:x", "refresh": "1m"}, "reload", '"KILL" is not a signal', "HUP, INT"),
    ({"reload": "signal:HUP", "refresh": "1m"}, "reload", "names no process", "signal:HUP:<process>"),
    ({"reload": "signal:HUP:/bin/x", "refresh": "1m"}, "reload", "names no process", "signal:HUP:<process>"),
    ({"names.db": ""}, "names.db", "is empty", "value=NAME"),
    ({"names.db": "password"}, "names.db", '"password" has no =', "value=NAME"),
    ({"names.db": "password="}, "names.db", '"" cannot be the name of a value', "letters"),
    ({"names.db": "password=../x"}, "names.db", '"../x" cannot be the name of a value', "letters"),
    ({"names.db": "password=..data"}, "names.db", '"..data" cannot be the name of a value', "letters"),
    ({"names.db": "a=X,a=Y"}, "names.db", '"a" gets two names', "remove one"),
    ({"names.db": "a=X,b=X"}, "names.db", '"X" is the name of two values', "choose another"),
    ({"names.db": "a=1X", "as.db": "env"}, "names.db", '"1X" cannot be the name of an environment', "letter"),
    ({"template.db": ""}, "template.db", "is empty", "remove it"),
    ({"template.db": "x", "as": "both"}, "template.db", "makes a file", "kmseal.dev/as.db: files"),
    ({"template.db": "x", "names.db": "a=b"}, "names.db", "has no effect beside", "remove one"),
    ({"template.db": "x", "file.db": "a/b"}, "file.db", '"a/b" cannot be the name of a file', "letters"),
    ({"file.db": "x"}, "file.db", "a template that is not there", "kmseal.dev/template.db"),
    ({"path.db": "/x", "as": "env"}, "path.db", 'has no effect: "db" becomes no files', "both"),
    ({"mode.db": "0444", "as.db": "env"}, "mode.db", "has no effect", "both"),
    ({"pth": "/x"}, "pth", "is not an annotation that kmseal knows", 'did you mean "path"?'),
    ({"mod.db": "0400"}, "mod.db", "is not an annotation that kmseal knows", 'did you mean "mode.db"?'),
    ({"template": "x"}, "template", "is not an annotation that kmseal knows", "kmseal.dev/template.<secret>"),
    ({"inject.db": "x"}, "inject.db", "is not an annotation that kmseal knows", "remove it"),
    ({"inject": "db,cache", "mode.cahce": "0400"}, "mode.cahce", "is not among the secrets", 'did you mean "cache"?'),
    ({"inject": "a,b", "path.a": "/x", "path.b": "/x"}, "path.b", "each other's way", "of its own"),
    ({"inject": "a,b", "path.a": "/x", "path.b": "/x/y"}, "path.b", "each other's way", "of its own"),
    ({"inject": "a,b", "path.a": "/run/x", "path.b": "/var/run/x"}, "path.b", "each other's way", "of its own"),
    ({"inject": "a,b", "path": "/x", "path.b": "/x"}, "path.b", "each other's way", "of its own"),
]


@pytest.mark.parametrize(("annotations", "blamed", "message", "remedy"), MISTAKES)
def test_mistakes(annotations: dict[str, str], blamed: str, message: str, remedy: str) -> None:
    """A mistake is refused with the annotation, what is wrong with its value, and what to write instead."""
    error = refusal({PREFIX + name: text for name, text in {"inject": "db", **annotations}.items()})
    assert error.field == f"metadata.annotations[kmseal.dev/{blamed}]"
    assert message in error.message
    assert remedy in error.remedy


def test_the_message_of_a_mistake() -> None:
    """A whole message reads as a user meets it."""
    assert str(refusal(ours(inject="db", path="relative"))) == (
        'metadata.annotations[kmseal.dev/path]: "relative" is not an absolute path; write it as /run/secrets/app'
    )


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("injekt", 'did you mean "inject"?'),
        ("Inject", 'did you mean "inject"?'),
        ("as", "add kmseal.dev/inject"),
        ("mode.db", "add kmseal.dev/inject"),
    ],
)
def test_a_misspelt_opt_in(name: str, remedy: str) -> None:
    """Annotations of ours without the one that opts in are a mistake, not a pod without secrets."""
    error = refusal({PREFIX + name: "db"})
    assert error.field == f"metadata.annotations[kmseal.dev/{name}]"
    assert remedy in error.remedy


def test_a_template_is_not_quoted() -> None:
    """A refusal never shows what stands in a template: somebody may have pasted a password into one."""
    assert "hunter2" not in str(refusal(ours(inject="db", template__db="hunter2", names__db="a=b")))


def read(annotations: dict[str, str]) -> Injection | Malformed:
    try:
        injection = parse(annotations)
    except Malformed as error:
        return error
    assert injection is not None
    return injection


_ANY = st.text(st.characters(codec="utf-8"), max_size=20)
_NAMES = st.sampled_from(["inject", "as", "path", "mode", "containers", "refresh", "reload"]) | st.builds(
    "{}.{}".format,
    st.sampled_from(["as", "mode", "path", "names", "template", "file", "x"]),
    st.sampled_from(["a", "b", "c.d"]),
)


@given(st.dictionaries(_NAMES | _ANY, _ANY | st.text(string.printable, max_size=20)), _ANY | st.just("a,b,c.d"))
def test_anything_is_read_or_refused(annotations: dict[str, str], inject: str) -> None:
    """Whatever stands in the annotations, it is understood, or refused with an annotation of ours and a remedy."""
    outcome = read({PREFIX + name: text for name, text in {**annotations, "inject": inject}.items()})
    if isinstance(outcome, Malformed):
        assert outcome.field.startswith(("metadata.annotations[kmseal.dev/", 'metadata.annotations["kmseal.dev/'))
        assert outcome.remedy
        assert str(outcome).isprintable()
    else:
        assert all(secret.path.startswith("/") for secret in outcome.secrets)


@pytest.mark.parametrize(("name", "own"), [("mode", "0440"), ("path", "/x"), ("as", "both")])
def test_what_is_wrong_for_the_pod_is_refused_although_each_secret_has_its_own(name: str, own: str) -> None:
    """It would be the value of the next secret that is added."""
    error = refusal({PREFIX + "inject": "db", PREFIX + name: "banana", f"{PREFIX}{name}.db": own})
    assert error.field == f"metadata.annotations[kmseal.dev/{name}]"
    assert '"banana"' in error.message
