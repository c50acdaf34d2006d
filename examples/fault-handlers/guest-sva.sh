#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A guest process whose SIZE bytes from FIRST on are guest memory from GPA on: its pages, when a device asks for them.
# iommuctl fault handler set RID --pasid N --exec …/guest-sva.sh FIRST GPA SIZE
first=$(($1)) gpa=$(($2)) size=$(($3)) asked=$(cat) response=success
table=$(echo "$asked" | jq -r .pgtable_name)
for page in $(echo "$asked" | jq -r '.requests[].iova' | sort -u); do
    offset=$((page - first))
    [ $offset -ge 0 ] && [ $offset -lt $size ] &&
        iommuctl pgtable map "$table" --iova "$page" --size 4K --gpa $((gpa + offset)) --quiet || response=invalid
done
echo "{\"response\": \"$response\"}"
