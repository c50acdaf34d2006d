# SPDX-License-Identifier: Apache-2.0
"""The generic operations carried out on a real kernel, through iommufd: what backends of real hardware have in common.

A vendor's backend brings its payloads and its view of devices (`vendor`); everything else is here.
"""
