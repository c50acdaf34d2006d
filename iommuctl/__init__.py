# SPDX-License-Identifier: Apache-2.0
"""Linux I/O page tables at a shell and in Python: domains, attachments, bindings, invalidations.

`from iommuctl import Iommu` is the library; importing the package itself loads nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iommuctl.iommu import Iommu

__all__ = ["Iommu", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Iommu":
        from iommuctl.iommu import Iommu

        return Iommu
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
