// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * QEMU's SMMUv3 has no SubstreamIDs, and its root complex does not say that devices are coherent, without which Linux
 * nests nothing. This makes Linux believe otherwise: of the unit as soon as there is an NVMe controller, which has
 * PASIDs (see pasid.c), and of the coherence of every device. QEMU refuses an STE with SubstreamIDs, so that such a
 * controller can do no DMA, but what Linux writes is all there. Nested translation is what QEMU really does.
 */
#include <linux/device/driver.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/property.h>

#include "../iommu/arm/arm-smmu-v3/arm-smmu-v3.h"

#define SUBSTREAM_BITS 16

static const struct property_entry properties[] = {
	PROPERTY_ENTRY_U32("pasid-num-bits", SUBSTREAM_BITS),
	{ }
};

/* Before the unit's driver hears of the device, as that fixes the size of its table. */
static void substreams_of_unit(struct pci_dev *device)
{
	struct device_driver *driver = driver_find("arm-smmu-v3", &platform_bus_type);
	struct device *unit = driver ? driver_find_next_device(driver, NULL) : NULL;
	struct arm_smmu_device *smmu;

	if (!unit)
		return;
	smmu = dev_get_drvdata(unit);
	smmu->ssid_bits = SUBSTREAM_BITS;
	smmu->features |= ARM_SMMU_FEAT_2_LVL_CDTAB;
	smmu->iommu.max_pasids = 1UL << SUBSTREAM_BITS;
	put_device(unit);
	if (device_create_managed_software_node(&device->dev, properties, NULL))
		pci_err(device, "no room for its properties\n");
}
DECLARE_PCI_FIXUP_HEADER(PCI_VENDOR_ID_REDHAT, 0x0010, substreams_of_unit);

/* After it. */
static void pasids_of_device(struct pci_dev *device)
{
	if (device->dev.iommu)
		device->dev.iommu->max_pasids = 1UL << SUBSTREAM_BITS;
}
DECLARE_PCI_FIXUP_FINAL(PCI_VENDOR_ID_REDHAT, 0x0010, pasids_of_device);

static void coherent(struct pci_dev *device)
{
	struct iommu_fwspec *described = dev_iommu_fwspec_get(&device->dev);

	if (described)
		described->flags |= IOMMU_FWSPEC_PCI_RC_CANWBS;
}
DECLARE_PCI_FIXUP_FINAL(PCI_ANY_ID, PCI_ANY_ID, coherent);
