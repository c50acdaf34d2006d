# SPDX-License-Identifier: Apache-2.0
"""How tables lie in memory: declared bit layouts, one page-table engine, views of memory."""
