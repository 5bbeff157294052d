"""Credentials from the files that a developer's machine has: the ``aliyun`` CLI's and the SDKs'.

Called by ``detection``. Only what can be used without another service is read: access keys, tokens, and the OIDC roles
that ``sts`` exchanges. Other modes are refused by name rather than skipped, so that nobody works under an identity
other than the one they chose. Values of these files are in no message.
"""

import configparser
import json
from collections.abc import Mapping
from pathlib import Path

from kmseal.envelope import shorten
from kmseal.errors import Misconfigured
from kmseal.kms.alibaba.credentials import Credentials
from kmseal.kms.alibaba.sts import OidcRole
from kmseal.redacted import Redacted


def read_cli_profile(path: Path, profile: str) -> Credentials | OidcRole:
    """Reads ``~/.aliyun/config.json``. ``profile`` empty: the current one. Raises Misconfigured."""
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError):
        config = None
    profiles = config.get("profiles") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(profiles, list):
        raise Misconfigured(f"{path} is not a configuration of the aliyun CLI", remedy="run: aliyun configure")
    name = profile or config.get("current") or "default"
    found = next((item for item in profiles if isinstance(item, dict) and item.get("name") == name), None)
    if found is None:
        raise _missing(path, str(name))
    section = {key: value for key, value in found.items() if isinstance(value, str)}
    match section.get("mode"):
        case "AK":
            return _access_key(section, path, name)
        case "StsToken":
            return _access_key(section, path, name, token="sts_token")  # noqa: S106  # The name of a member.
        case "OIDC":
            return _oidc_role(
                section, path, name, ("ram_role_arn", "oidc_provider_arn", "oidc_token_file", "ram_session_name")
            )
        case mode:
            raise _unknown_mode(path, name, mode, "AK, StsToken and OIDC")


def read_ini_profile(path: Path, profile: str) -> Credentials | OidcRole:
    """Reads ``credentials.ini``. ``profile`` empty: the section ``default``. Raises Misconfigured."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    readable = True
    try:
        parser.read_string(_read(path))
    except configparser.Error:
        readable = False  # Raised below: this exception quotes the file, and would stay as the other's context.
    if not readable:
        raise Misconfigured(
            f"{path} is not an ini file", remedy="write [default] with type, access_key_id and access_key_secret"
        )
    name = profile or "default"
    if not parser.has_section(name):
        raise _missing(path, name)
    section = dict(parser.items(name))
    match section.get("type"):
        case "access_key":
            return _access_key(section, path, name)
        case "sts":
            return _access_key(section, path, name, token="security_token")  # noqa: S106  # The name of a member.
        case "oidc_role_arn":
            return _oidc_role(
                section, path, name, ("role_arn", "oidc_provider_arn", "oidc_token_file_path", "role_session_name")
            )
        case mode:
            raise _unknown_mode(path, name, mode, "access_key, sts and oidc_role_arn")


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError):
        text = None  # Raised below: a decoding error holds the whole file.
    if text is None:
        raise Misconfigured(
            f"the profile file {path} cannot be read",
            remedy="make it readable to this user, or set access key variables",
        )
    return text


def _access_key(section: Mapping[str, str], path: Path, name: str, token: str = "") -> Credentials:
    access_key_id = _require(section, "access_key_id", path, name)
    secret = Redacted(_require(section, "access_key_secret", path, name).encode())
    if not token:
        return Credentials(access_key_id, secret)
    security_token = Redacted(_require(section, token, path, name).encode())
    return Credentials(access_key_id, secret, security_token, provider="static_sts")


def _oidc_role(section: Mapping[str, str], path: Path, name: str, members: tuple[str, str, str, str]) -> OidcRole:
    role_arn, provider_arn, token_file, session_name = members
    return OidcRole(
        _require(section, role_arn, path, name),
        _require(section, provider_arn, path, name),
        Path(_require(section, token_file, path, name)),
        section.get(session_name) or "kmseal",
    )


def _require(section: Mapping[str, str], member: str, path: Path, name: str) -> str:
    value = section.get(member, "")
    if not value:
        raise Misconfigured(
            f"profile {shorten(name)} of {path} has no {member}", remedy="complete the profile, or choose another"
        )
    return value


def _missing(path: Path, name: str) -> Misconfigured:
    return Misconfigured(
        f"{path} has no profile {shorten(name)}",
        field="ALIBABA_CLOUD_PROFILE",
        remedy="set ALIBABA_CLOUD_PROFILE to one that it has",
    )


def _unknown_mode(path: Path, name: str, mode: str | None, known: str) -> Misconfigured:
    return Misconfigured(
        f"profile {shorten(name)} of {path} is of mode {shorten(mode or '')}, which kmseal does not read",
        field="ALIBABA_CLOUD_PROFILE",
        remedy=f"it reads {known}; or set access key variables, which win over profiles",
    )
