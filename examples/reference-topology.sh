#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The reference topology on a simulated machine: a host, two virtual machines, and processes of their guests that
# share virtual addresses with devices. Uses the state folder of $IOMMUCTL_STATE, which must be new.
#
#   RID1            domain1   the host's own DMA (IOVA)
#   RID1 PASID 1    domain2   vm1 (GPA)
#   RID1 PASID 2    domain3   vm2 (GPA)
#   RID2            domain3   belongs to vm2 as a whole
#   RID1 PASID 3, 4 nested on domain2: two processes in vm1
#   RID1 PASID 5    nested on domain3: a process in vm2
#   RID2 PASID 3    nested on domain3: another one
set -eu

iommuctl() { command "${IOMMUCTL:-iommuctl}" "$@"; }
rid1=0000:00:01.0
rid2=0000:00:02.0

iommuctl device add $rid1 --pasid-bits 20 --ats
iommuctl device add $rid2 --pasid-bits 16

# What each domain maps. A virtual machine's memory is named, so that nobody has to choose addresses.
iommuctl domain create domain1 --label host
iommuctl domain map domain1 --iova 0x10000 --size 64K --pa 0x100000
for vm in 1 2; do
    domain=domain$((vm + 1))
    iommuctl memory create vm$vm --size 64M
    iommuctl domain create $domain --nest-parent --label vm$vm
    iommuctl domain map $domain --iova 0 --size 64M --memory vm$vm
done

iommuctl attach domain1 $rid1 --label "host driver"
iommuctl attach domain2 $rid1 --pasid 1 --label "vm1 queue"
iommuctl attach domain3 $rid1 --pasid 2 --label "vm2 queue"
iommuctl attach domain3 $rid2 --label "vm2 device"

# Each guest process has a stage-1 table of its own, in its virtual machine's memory. All map the same virtual
# address, each to other guest memory.
bind() { # table, parent, GPA of pool, GPA of buffer, RID, PASID
    iommuctl pgtable create "$1" --parent "$2" --pool "$3+64K"
    iommuctl pgtable map "$1" --iova 0x7f0000000000 --size 16K --gpa "$4"
    iommuctl bind-pgtable "$2" "$5" --pgtable "$1" --pasid "$6" --label "process $1"
}
bind a1 domain2 0x1000000 0x200000 $rid1 3
bind b1 domain2 0x1100000 0x300000 $rid1 4
bind c1 domain3 0x1000000 0x200000 $rid1 5
bind a2 domain3 0x1100000 0x300000 $rid2 3

iommuctl topology
iommuctl check
