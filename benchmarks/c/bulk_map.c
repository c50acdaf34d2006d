// SPDX-License-Identifier: Apache-2.0
/*
 * Maps 1 GiB in pages of 4 KiB into an empty 4-level table, as the kernel's generic page-table code does: it goes down
 * level by level, makes the tables that are missing, zeroed, and fills each leaf table in a tight loop that looks at
 * every entry before it writes it once. Table memory is there and has been touched before the clock starts.
 *
 * For each line on stdin: one run, and a line "nanoseconds sum-of-leaf-entries" on stdout.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE 4096ul
#define ENTRIES 512
#define TABLES 520
#define READ_WRITE 3ull
#define SNOOP (1ull << 11)
#define ADDRESS 0x000ffffffffff000ull

static unsigned char *arena;
static size_t used;

static uint64_t *new_table(void)
{
	uint64_t *table;

	if (used == TABLES * PAGE)
		return NULL;
	table = (uint64_t *)(arena + used);
	used += PAGE;
	return memset(table, 0, PAGE);
}

static int map_level(uint64_t *table, int level, uint64_t iova, uint64_t end, uint64_t pa)
{
	int shift = 12 + 9 * (level - 1);
	unsigned int index = iova >> shift & (ENTRIES - 1);

	if (level == 1) {
		unsigned int stop = index + ((end - iova) >> 12);

		for (; index < stop; index++, pa += PAGE) {
			volatile uint64_t *entry = &table[index];

			if (*entry & READ_WRITE)
				return -1;
			*entry = pa | READ_WRITE | SNOOP;
		}
		return 0;
	}
	for (; iova < end; index++) {
		uint64_t next = ((iova >> shift) + 1) << shift;
		uint64_t stop = next < end ? next : end;
		uint64_t *child;

		if (table[index] & READ_WRITE) {
			child = (uint64_t *)(uintptr_t)(table[index] & ADDRESS);
		} else {
			child = new_table();
			if (!child)
				return -1;
			table[index] = (uintptr_t)child | READ_WRITE;
		}
		if (map_level(child, level - 1, iova, stop, pa))
			return -1;
		pa += stop - iova;
		iova = stop;
	}
	return 0;
}

static uint64_t sum(const uint64_t *table, int level)
{
	uint64_t total = 0;
	int index;

	for (index = 0; index < ENTRIES; index++) {
		if (!table[index])
			continue;
		if (level == 1)
			total += table[index];
		else
			total += sum((const uint64_t *)(uintptr_t)(table[index] & ADDRESS), level - 1);
	}
	return total;
}

int main(int argc, char **argv)
{
	uint64_t iova, size, pa;

	if (argc != 4)
		return 2;
	iova = strtoull(argv[1], NULL, 0);
	size = strtoull(argv[2], NULL, 0);
	pa = strtoull(argv[3], NULL, 0);
	arena = aligned_alloc(PAGE, TABLES * PAGE);
	if (!arena)
		return 1;
	memset(arena, 0xa5, TABLES * PAGE);
	while (getchar() != EOF) {
		struct timespec start, stop;
		uint64_t *root;

		used = 0;
		root = new_table();
		clock_gettime(CLOCK_MONOTONIC, &start);
		if (map_level(root, 4, iova, iova + size, pa))
			return 1;
		clock_gettime(CLOCK_MONOTONIC, &stop);
		printf("%lld %llu\n",
		       (stop.tv_sec - start.tv_sec) * 1000000000ll + stop.tv_nsec - start.tv_nsec,
		       (unsigned long long)sum(root, 4));
		fflush(stdout);
	}
	return 0;
}
