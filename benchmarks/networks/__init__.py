"""The real networks of a manifest, opened with the preprocessing that it states."""

from benchmarks.networks.manifest import Entry, open_bare, open_network, read_manifest

__all__ = ["Entry", "open_bare", "open_network", "read_manifest"]
