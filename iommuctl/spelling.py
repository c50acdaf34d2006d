# SPDX-License-Identifier: Apache-2.0
"""How names and RIDs are spelt. Imports little, for those who only have to tell whether a word is one."""

import re

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,62}", re.ASCII)
"""Of a domain, a page table, named memory."""
RID = re.compile(r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])", re.ASCII)
"""Segment (None where it is left out, for 0), bus, device, function."""
