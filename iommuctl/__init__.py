# SPDX-License-Identifier: Apache-2.0
"""Linux I/O page tables at a shell and in Python: domains, attachments, bindings, invalidations.

`from iommuctl import Iommu` is the library; importing the package itself loads nothing.
"""

TYPE_CHECKING = False  # Type checkers take it for typing's, which would take longer to import than a completion runs.

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

__all__ = ["Iommu", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "Iommu":
        from iommuctl.iommu import Iommu

        return Iommu
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
