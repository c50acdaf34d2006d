# SPDX-License-Identifier: Apache-2.0
"""What the reference topology has on any hardware: two devices, the host's domain, and the memory of two guests."""


def machines(rid1: str, rid2: str, *, memory: str) -> str:
    """Commands, one to a line. The guests have so much memory, domain2 is the first one's and domain3 the second's."""
    return f"""
device bind {rid1}
device bind {rid2}
memory create host --size 64K
domain create domain1 --label host
domain map domain1 --iova 0x10000 --size 64K --memory host
memory create vm1 --size {memory}
domain create domain2 --nest-parent --label vm1
domain map domain2 --iova 0 --size {memory} --memory vm1
memory create vm2 --size {memory}
domain create domain3 --nest-parent --label vm2
domain map domain3 --iova 0 --size {memory} --memory vm2
"""
