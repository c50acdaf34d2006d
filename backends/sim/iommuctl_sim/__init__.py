# SPDX-License-Identifier: Apache-2.0
"""The simulator: a machine with memory, an IOMMU unit of a chosen architecture, and devices that do DMA."""
