"""Makes the parameter store that ``--parameters`` names."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from acap_runtime.errors import NotReady
from acap_runtime.plugins.installed import InstalledStore, Plugins
from acap_runtime.settings.options import Settings
from acap_runtime.stores import Store
from acap_runtime.stores.credentials import read_credentials
from acap_runtime.stores.file import FileStore
from acap_runtime.stores.remote import RemoteStore

_LOG = logging.getLogger(__name__)


def make_store(settings: Settings, plugins: Plugins, environment: Mapping[str, str] = os.environ) -> Store | None:
    """Make the store that the settings name: a camera's for a URL, a plugin's for its name, otherwise a file's.

    If they name none, make the device's own store if exactly one plugin brings it; otherwise return None. The caller
    must close the store. Raises `NotReady` if there is no store of that name.
    """
    if settings.parameters is None:
        return _own_store(settings, plugins)
    return _named_store(settings, settings.parameters, plugins, environment)


def _named_store(settings: Settings, name: str, plugins: Plugins, environment: Mapping[str, str]) -> Store:
    if "://" in name:
        return _vapix_store(name, settings, environment)
    found = [each for each in plugins.stores() if each.store.name == name]
    if len(found) > 1:
        raise NotReady(f"parameter store {name} is there more than once: {_claimants(found)}")
    if found:
        return RemoteStore(found[0], verbose=settings.verbose)
    path = Path(name)
    if not path.exists() and "/" not in name:
        names = ", ".join(sorted(each.store.name for each in plugins.stores())) or "none"
        raise NotReady(
            f"--parameters {name}: expected a file, https://HOST, or a plugin's store, of which there are here: {names}"
        )
    return FileStore(path)


def _vapix_store(url: str, settings: Settings, environment: Mapping[str, str]) -> Store:
    try:
        from acap_runtime.stores.vapix import VapixStore  # noqa: PLC0415 - what it needs is an extra
    except ModuleNotFoundError as error:
        raise NotReady(
            f"--parameters with a URL needs {error.name}, which is not installed: pip install 'acap-runtime[vapix]'"
        ) from None
    credentials = read_credentials(settings.parameters_credentials, environment)
    return VapixStore(url, credentials, settings.parameters_ca)


def _own_store(settings: Settings, plugins: Plugins) -> Store | None:
    found = [each for each in plugins.stores() if each.store.own]
    if len(found) > 1:
        _LOG.warning("no parameters: this device has several stores of its own: %s", _claimants(found))
    return RemoteStore(found[0], verbose=settings.verbose) if len(found) == 1 else None


def _claimants(found: list[InstalledStore]) -> str:
    claimants = " and ".join(
        f"{each.store.name} of {each.plugin.distribution} (plugin {each.plugin.name})" for each in found
    )
    return f"{claimants}; uninstall one, or start with --block and its plugin or distribution name"
