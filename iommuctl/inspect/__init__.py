# SPDX-License-Identifier: Apache-2.0
"""Looking at structures and tables without changing them."""
