// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * No device of QEMU has PASIDs. This makes Linux believe that its NVMe controllers do: for the capability register it
 * is sent to the subsystem id, which is 0x1100 and reads as 17 bits of PASID, and for the control register to bits that
 * cannot be written. Such a device never sends a PASID, but what Linux writes into its PASID table is all there.
 */
#include <linux/pci.h>

static void pasid_of_subsystem_id(struct pci_dev *device)
{
	device->pasid_cap = PCI_SUBSYSTEM_ID - PCI_PASID_CAP;
	device->pasid_no_tlp = 1;
}
DECLARE_PCI_FIXUP_FINAL(PCI_VENDOR_ID_REDHAT, 0x0010, pasid_of_subsystem_id);
