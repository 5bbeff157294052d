"""What a pod asks for: the annotations under ``kmseal.dev/`` as one frozen value, and their strict parser.

Called by ``mutation`` at admission, and by the broker, which answers only for what the pod lists and renders the
templates that it names. It must not know pods: whether a container of a name exists is for ``injection`` to say. The
authority for users is ``docs/injection.md``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kmseal.envelope import require_object_name, require_value_name, shorten
from kmseal.errors import Malformed
from kmseal.target import API_GROUP
from kmseal_webhook.forms import (
    SIGNAL,
    nearest,
    overlap,
    read_directory,
    read_list,
    read_mode,
    read_names,
    read_refresh,
    read_reload,
    refused,
)

PREFIX: Final = f"{API_GROUP}/"
INJECT: Final = f"{PREFIX}inject"
INJECTED: Final = f"{PREFIX}injected"
"""Written by us, never by users: a digest of what was asked for."""
DEFAULT_PATH: Final = "/run/secrets/kmseal"
SECRETS_MAX: Final = 16
CONTAINERS_MAX: Final = 256

OF_POD: Final = ("inject", "as", "path", "mode", "containers", "refresh", "reload")
OF_SECRET: Final = ("as", "mode", "path", "names", "template", "file")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,253}", re.ASCII)
_AS: Final = {"files": (True, False), "env": (False, True), "both": (True, True)}


@dataclass(frozen=True, slots=True)
class InjectedSecret:
    """One EncryptedSecret that a pod asks for, and how it wants it."""

    name: str
    files: bool
    env: bool
    path: str
    """The directory of its files in the containers."""
    mode: int | None = None
    """The permissions of its files; None where the pod leaves the choice to us."""
    names: Mapping[str, str] | None = None
    """Other names by the value's own; values that are not in it are left out. None: all, under their own names."""
    template: str | None = None
    """The template of its only file; None where each value is a file."""
    file: str = ""
    """The name of the template's file."""

    @property
    def needs_value_names(self) -> bool:
        """Whether the pod cannot be made without the names of the EncryptedSecret's values."""
        return self.env or self.names is not None


@dataclass(frozen=True, slots=True)
class Injection:
    """All that a pod asks for."""

    secrets: tuple[InjectedSecret, ...]
    containers: tuple[str, ...] | None = None
    """None: all containers, no init containers."""
    refresh_seconds: int | None = None
    reload: str | None = None
    """What happens after a refresh that changed something, as it was written."""

    def secret(self, name: str) -> InjectedSecret | None:
        """The secret of this name; None where the pod does not list it."""
        return next((secret for secret in self.secrets if secret.name == name), None)

    @property
    def signals(self) -> bool:
        """Whether a refresh sends a signal to a process of the pod."""
        return self.reload is not None and self.reload.startswith(SIGNAL)


def annotation_field(name: str) -> str:
    """The path of an annotation of ours, for errors; ``name`` is what follows the prefix."""
    if not _PLAIN.fullmatch(name):
        # Admission comes before validation: the name may still be anything.
        return f"metadata.annotations[{shorten(PREFIX + name)}]"
    return f"metadata.annotations[{PREFIX}{name}]"


def deciding(annotations: Mapping[str, str], base: str, secret: str = "") -> str:
    """The path of the annotation that decides: a secret's own where it has one, else the pod's, there or not."""
    return annotation_field(_own(base, secret, asked(annotations)))


def asked(annotations: Mapping[str, str]) -> dict[str, str]:
    """Our annotations that users write, by what follows the prefix."""
    return {
        name.removeprefix(PREFIX): text
        for name, text in annotations.items()
        if name.startswith(PREFIX) and name != INJECTED
    }


def parse(annotations: Mapping[str, str]) -> Injection | None:
    """What a pod's annotations ask for; None where they ask for nothing.

    Annotations of ours without ``inject`` are a mistake like any other: a pod whose opt-in is misspelt must not start
    without its secrets. Raises Malformed with the annotation as its field.
    """
    ours = asked(annotations)
    if not ours:
        return None
    if "inject" not in ours:
        name = next(iter(ours))
        if name.partition(".")[0] in (*OF_POD, *OF_SECRET):
            raise refused(annotation_field(name), f"has no effect without {INJECT}", f"add {INJECT}, or remove it")
        raise _unknown(name, ())
    secrets = _read_secrets(ours["inject"])
    _require_known(ours, secrets)
    _require_values_of_pod(ours)
    refresh = read_refresh(ours["refresh"], annotation_field("refresh")) if "refresh" in ours else None
    injection = Injection(
        secrets=tuple(_read_secret(name, ours) for name in secrets),
        containers=_read_containers(ours),
        refresh_seconds=refresh,
        reload=read_reload(ours["reload"], annotation_field("reload")) if "reload" in ours else None,
    )
    if injection.reload is not None and refresh is None:
        raise refused(
            annotation_field("reload"),
            f"{shorten(injection.reload)} would never happen: nothing is refreshed",
            f"add {PREFIX}refresh, as 5m, or remove it",
        )
    _require_apart(injection.secrets, ours)
    return injection


def _read_secrets(text: str) -> tuple[str, ...]:
    field = annotation_field("inject")
    names = read_list(text, field, what="names of EncryptedSecrets", most=SECRETS_MAX)
    for name in names:
        try:
            require_object_name(name)
        except Malformed as error:
            raise refused(field, f"{shorten(name)} cannot be the name of an EncryptedSecret", error.remedy) from None
    return names


def _require_known(ours: Mapping[str, str], secrets: tuple[str, ...]) -> None:
    for name in ours:
        if name in OF_POD:
            continue
        base, dot, secret = name.partition(".")
        if not dot or base not in OF_SECRET:
            raise _unknown(name, secrets)
        if secret not in secrets:
            raise refused(
                annotation_field(name),
                f"{shorten(secret)} is not among the secrets of {INJECT}",
                f"add it there, or correct the name{nearest(secret, secrets)}",
            )


def _unknown(name: str, secrets: tuple[str, ...]) -> Malformed:
    per_secret = [f"{base}.{secret}" for base in OF_SECRET for secret in secrets or ("<secret>",)]
    remedy = f"remove it, or correct its name{nearest(name, (*OF_POD, *per_secret))}"
    if name in OF_SECRET:
        remedy = f"write {PREFIX}{name}.<secret>: this one is for one secret"
    return refused(annotation_field(name), "is not an annotation that kmseal knows", remedy)


def _read_containers(ours: Mapping[str, str]) -> tuple[str, ...] | None:
    if "containers" not in ours:
        return None
    return read_list(
        ours["containers"], annotation_field("containers"), what="names of containers", most=CONTAINERS_MAX
    )


def _require_values_of_pod(ours: Mapping[str, str]) -> None:
    """Refuses what is wrong for the pod, also where each secret has its own: the next secret would not."""
    for base, read in (("as", _read_as), ("mode", read_mode), ("path", read_directory)):
        if base in ours:
            read(ours[base], annotation_field(base))


def _read_secret(name: str, ours: Mapping[str, str]) -> InjectedSecret:
    as_from = _own("as", name, ours)
    files, env = _read_as(ours.get(as_from, "files"), annotation_field(as_from))
    names = None
    if text := ours.get(f"names.{name}"):
        names = read_names(text, annotation_field(f"names.{name}"), variables=env)
    elif text == "":
        raise refused(annotation_field(f"names.{name}"), "is empty", "write value=NAME, value=NAME, or remove it")
    mode_from = _own("mode", name, ours)
    secret = InjectedSecret(
        name=name,
        files=files,
        env=env,
        path=_read_path(name, ours),
        mode=read_mode(ours[mode_from], annotation_field(mode_from)) if mode_from in ours else None,
        names=names,
        template=ours.get(f"template.{name}"),
        file=ours.get(f"file.{name}", name),
    )
    _require_sense(secret, ours)
    return secret


def _own(base: str, secret: str, ours: Mapping[str, str]) -> str:
    """The annotation that decides for a secret: its own where there is one."""
    return f"{base}.{secret}" if f"{base}.{secret}" in ours else base


def _read_as(text: str, field: str) -> tuple[bool, bool]:
    """Whether files, whether variables."""
    if text not in _AS:
        raise refused(field, f"{shorten(text)} is not possible", f"write one of {', '.join(_AS)}")
    return _AS[text]


def _read_path(name: str, ours: Mapping[str, str]) -> str:
    own = f"path.{name}"
    if own in ours:
        return read_directory(ours[own], annotation_field(own))
    return f"{read_directory(ours.get('path', DEFAULT_PATH), annotation_field('path'))}/{name}"


def _require_sense(secret: InjectedSecret, ours: Mapping[str, str]) -> None:
    """Refuses annotations of one secret that have no effect or contradict each other."""
    name = secret.name
    for own in (f"path.{name}", f"mode.{name}"):
        if own in ours and not secret.files:
            remedy = f"remove it, or write {PREFIX}as.{name}: both"
            raise refused(annotation_field(own), f"has no effect: {shorten(name)} becomes no files", remedy)
    if secret.template is None:
        if f"file.{name}" in ours:
            remedy = f"remove it, or add {PREFIX}template.{name}"
            raise refused(annotation_field(f"file.{name}"), "names the file of a template that is not there", remedy)
        return
    field = annotation_field(f"template.{name}")
    if not secret.template:
        raise refused(field, "is empty", "write the template, or remove it")
    if secret.env:
        raise refused(field, "makes a file, not variables", f"add {PREFIX}as.{name}: files")
    if secret.names is not None:
        raise refused(
            annotation_field(f"names.{name}"),
            f"has no effect beside {PREFIX}template.{name}, which makes the only file",
            "remove one of the two",
        )
    try:
        require_value_name(secret.file)
    except Malformed as error:
        raise refused(
            annotation_field(f"file.{name}"), f"{shorten(secret.file)} cannot be the name of a file", error.remedy
        ) from None


def _require_apart(secrets: tuple[InjectedSecret, ...], ours: Mapping[str, str]) -> None:
    """Refuses two secrets in one directory, or one inside another: the second mount would cover or miss the first."""
    placed = [secret for secret in secrets if secret.files]
    for index, one in enumerate(placed):
        for other in placed[:index]:
            if overlap(one.path, other.path):
                source = next((s for s in (one, other) if f"path.{s.name}" in ours), one)
                raise refused(
                    annotation_field(_own("path", source.name, ours)),
                    f"the files of {shorten(one.name)} in {one.path} and those of {shorten(other.name)} in "
                    f"{other.path} get into each other's way",
                    "give each a directory of its own",
                )
