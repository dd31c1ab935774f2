"""The tool lists of all servers, shared by the fleet: at hand when a turn needs them."""

from chatd.catalogue.catalogue import Catalogue
from chatd.catalogue.entries import Listing, Skipped
from chatd.catalogue.pinning import Pinning

__all__ = ["Catalogue", "Listing", "Pinning", "Skipped"]
