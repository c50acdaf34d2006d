#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest process whose SIZE bytes from FIRST on are guest memory from GPA on: its pages, when a device asks for them.

iommuctl fault handler set RID --pasid N --exec …/guest_sva.py FIRST GPA SIZE
"""

import json
import subprocess
import sys

first, gpa, size = (int(number, 0) for number in sys.argv[1:])
asked = json.load(sys.stdin)
pages = {int(request["iova"], 16) for request in asked["requests"]}
command = ["iommuctl", "pgtable", "map", asked["pgtable_name"] or "", "--size", "4K", "--quiet"]
places = [["--iova", hex(page), "--gpa", hex(gpa + page - first)] for page in sorted(pages)]
known = all(first <= page < first + size for page in pages)
mapped = known and all(subprocess.run([*command, *place], check=False).returncode == 0 for place in places)
print(json.dumps({"response": "success" if mapped else "invalid"}))
