# SPDX-License-Identifier: Apache-2.0
"""Labels of what exists: they are notes for people, and change without touching hardware."""

from iommuctl.errors import SlotEmpty
from iommuctl.model import Attachment, Binding, Slot
from iommuctl.rules import check_label
from iommuctl.session import Session


class Labels(Session):
    """The part of class Iommu that writes labels. None takes one off."""

    def relabel_domain(self, selector: str, label: str | None) -> None:
        """Raises NoSuchDomain."""
        check_label(label)
        with self._change() as operation:
            operation.books.relabel_domain(operation.books.domain(selector), label)

    def relabel_pgtable(self, selector: str, label: str | None) -> None:
        """Raises NoSuchPgtable."""
        check_label(label)
        with self._change() as operation:
            operation.books.relabel_pgtable(operation.books.pgtable(selector), label)

    def relabel_attachment(self, slot: Slot, label: str | None) -> None:
        """The label of the attachment in a slot, also below a binding. Raises SlotEmpty."""
        check_label(label)
        with self._change() as operation:
            held = operation.books.slot(slot)
            if isinstance(held, Attachment):
                operation.books.put_slot(slot, held._replace(label=label))
            elif held and not held.implicit:
                operation.books.put_slot(slot, held._replace(attachment_label=label))
            else:
                raise SlotEmpty(f"nothing was attached in {slot} by itself")

    def relabel_binding(self, slot: Slot, label: str | None) -> None:
        """The label of the binding in a slot. Raises SlotEmpty."""
        check_label(label)
        with self._change() as operation:
            held = operation.books.slot(slot)
            if not isinstance(held, Binding):
                raise SlotEmpty(f"nothing is bound in {slot}")
            operation.books.put_slot(slot, held._replace(label=label))
